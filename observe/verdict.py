"""One look at the windows: detect, diagnose, decide. Pure, so that live watching and replay cannot differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import polars as pl

from observe.alert import abnormal, step, step_usual, unusual_text
from observe.alert.intervals import affected
from observe.detect import detect, gauge_shifts
from observe.detect.canary import Comparison, compare, released, worst
from observe.detect.grid import METRIC, WARM_UP_WINDOWS, span_of
from observe.detect.held import Trouble, held_shifts, outlasting
from observe.detect.live import detect_live
from observe.detect.memory import Memory
from observe.detect.rules import evaluate
from observe.detect.seasons import Past, seasons
from observe.detect.shifts import LOOKS_PER_DAY
from observe.detect.slo import Burning, burning, rule_name
from observe.detect.tokens import Given, given_tokens, of_no_window
from observe.diagnose import diagnose
from observe.diagnose.attributes import Ask, with_attributes
from observe.diagnose.logged import with_logs
from observe.diagnose.metrics_only import symptoms as felt
from observe.diagnose.structure import with_structure
from observe.frames import Frames
from observe.looks import Look
from observe.revise import sealed
from observe.settings import CanarySettings, DetectSettings, Rule, Settings
from observe.types import (
    WINDOW_NS,
    Cause,
    CauseKind,
    Diagnosis,
    Evidence,
    Impact,
    Incident,
    Interval,
    Season,
    Shift,
    State,
)
from observe.wire import API_PREFIX, rfc3339

SECOND_NS = 1_000_000_000
CANARY_SCORE = 0.95
PERSISTS_P = 0.05
OF_CALLS = re.compile(r"gen_ai|vllm|sglang|tgi_|nv_inference|token", re.IGNORECASE)
"""Histograms sent as metrics that measure model calls: they carry no tokens, so spans speak for them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a look may ask beyond its frames; the same question gets the same answer. It does without one it lacks."""

    attributes: Ask | None = None  # of requests: without them causes are narrowed by what frames hold alone
    past: Past | None = None  # what series did in earlier times: without it nothing is usual for the time of the day
    joined: bool = True  # the frames hold self times and edges of all windows


class Unjoined(Exception):
    """The look has something to explain, and was given frames without self times and edges."""


NOTHING = Asked()


def look(
    frames: Frames,
    known: Sequence[Incident],
    now_ns: int,
    settings: Settings,
    asked: Asked = NOTHING,
    memory: Memory | None = None,
) -> list[Incident]:
    """The incidents that changed, in their new state, given the incidents `known` so far.

    `frames` reach back at least `horizon_ns(settings)` from `now_ns`, where there is that much history. `memory` of the
    looks before saves work and changes nothing that is told. Raises Unjoined where `asked` says that joins are missing
    and they are needed: the same look is then to be made with them.
    """
    frames = sealed(frames, span_of(now_ns, settings.detect).end_ns)
    rules = (*settings.detect.rules, *_objectives(settings))
    found, usual = _seen(frames, known, now_ns, settings, asked, memory)
    changed = step(known, found, now_ns, settings.alert, rules, settings.detect.new_normal_s)
    return [*changed, *step_usual(known, usual, now_ns, settings.alert)]


def again(given: Look) -> list[Incident]:
    """The look once more, on what it was given."""
    return look(given.frames, given.known, given.at_ns, given.settings, Asked(given.answer, given.past))


def _seen(
    frames: Frames,
    known: Sequence[Incident],
    now_ns: int,
    settings: Settings,
    asked: Asked,
    memory: Memory | None,
) -> tuple[list[Diagnosis], list[Season]]:
    """What is wrong at `now_ns`, and why; and what would be, if it were not so at this time on other days."""
    excluded = abnormal(known, now_ns, new_normal_s=settings.detect.new_normal_s)
    given = given_tokens(frames, now_ns, settings.detect, excluded)
    burns = burning(frames, now_ns, settings.slo, settings.detect)
    shifts = [
        *of_no_window(_detected(given.frames, now_ns, settings, excluded, memory), frames),
        *given.shifts,
        *evaluate(frames, now_ns, settings.detect),
        *(burn.shift for burn in burns),
    ]
    shifts = [shift for shift in shifts if not _told_by_tokens(shift, given)]
    lasting = _lasting(frames, known, now_ns, settings, asked.past, excluded)
    held = {service for incident, _ in lasting for service in affected(incident)}  # told of by no other test
    shifts = [shift for shift in shifts if shift.rule or shift.service not in held]
    every = [*shifts, *(shift for _, of in lasting for shift in of)]
    by_shift = _seasons(every, frames, known, now_ns, settings, asked.past)
    usual = [season for season in by_shift.values() if season.usual]
    unusual = {shift for shift in every if shift not in by_shift or not by_shift[shift].usual}
    shifts = [shift for shift in shifts if shift in unusual]
    found: list[Diagnosis] = []
    spanless = frames.selfs.is_empty() and not frames.gauges.is_empty()
    if not asked.joined and (shifts or lasting or spanless):
        raise Unjoined
    context = gauge_shifts(frames, now_ns, settings.detect, excluded) if shifts or spanless else []
    if spanless:
        told = {(s.service, s.operation, s.measure) for s in shifts}
        shifts += [s for s in felt(context) if (s.service, s.operation, s.measure) not in told]
    if shifts:
        found = diagnose(shifts, frames, now_ns, settings.diagnose, context)
        found = [_with_reasons(one, given, burns, by_shift) for one in found if not _explained(one, given)]
        ask = asked.attributes
        found = found if ask is None else _with_requests(found, frames, now_ns, ask)
    found += [_goes_on(incident, [s for s in of if s in unusual]) for incident, of in lasting]
    return _with_rollbacks(found, rollbacks(frames, now_ns, settings)), usual


def _lasting(
    frames: Frames,
    known: Sequence[Incident],
    now_ns: int,
    settings: Settings,
    past: Past | None,
    excluded: Sequence[Interval],
) -> list[tuple[Incident, list[Shift]]]:
    """Open incidents that the trailing baseline lies in, with the shifts of their services against the time before."""
    found: list[tuple[Incident, list[Shift]]] = []
    done: set[str] = set()
    alive = [i for i in known if i.resolved_ns is None and not i.usual]
    for incident in sorted(alive, key=lambda i: (i.onset_ns, i.id)):
        trouble = Trouble(incident.onset_ns, tuple(s for s in affected(incident) if s not in done))
        accepted = now_ns - incident.onset_ns > settings.detect.new_normal_s * SECOND_NS
        if past is None or accepted or not trouble.services or not outlasting(trouble, now_ns, settings.detect):
            continue
        shifts = held_shifts(frames, trouble, now_ns, settings.detect, past, excluded)
        if shifts is not None:
            found.append((incident, shifts))
            done |= set(trouble.services)
    return found


def _goes_on(incident: Incident, shifts: Sequence[Shift]) -> Diagnosis:
    """What was found out while the time before it was still there to compare with."""
    return Diagnosis(tuple(shifts), incident.causes, incident.ruled_out, incident.impact)


def _with_requests(found: list[Diagnosis], frames: Frames, now_ns: int, ask: Ask) -> list[Diagnosis]:
    """What frames do not hold: attributes of requests, where they end early, what services say of their errors."""
    found = with_attributes(found, frames, now_ns, ask)
    return with_logs(with_structure(found, frames, now_ns, ask), frames, now_ns, ask)


def _seasons(
    shifts: Sequence[Shift],
    frames: Frames,
    known: Sequence[Incident],
    now_ns: int,
    settings: Settings,
    past: Past | None,
) -> Mapping[Shift, Season]:
    """Latencies that were judged given their tokens are not asked about: earlier prompts were other prompts."""
    if past is None or not shifts:
        return {}
    by_tokens = set(frames.tokens["service"].unique())
    since: dict[str, int] = {}
    for incident in known:
        if incident.state is not State.RESOLVED and not incident.usual:
            for service in affected(incident):
                since[service] = min(incident.onset_ns, since.get(service, incident.onset_ns))
    asked = [s for s in shifts if not (s.service in by_tokens and s.measure.startswith("latency_"))]
    return seasons(asked, now_ns, settings.detect, past, since)


def _detected(
    frames: Frames, now_ns: int, settings: Settings, excluded: Sequence[Interval], memory: Memory | None
) -> list[Shift]:
    if memory is None:
        return detect(frames, now_ns, settings.detect, excluded)
    # What is judged given its tokens changes as the fit does, also in windows that the memory has seen.
    refitted = frozenset(frames.tokens["service"].unique().to_list())
    return detect_live(memory, frames, now_ns, settings.detect, excluded, refitted)


def rollbacks(frames: Frames, now_ns: int, settings: Settings) -> list[Diagnosis]:
    """New versions that take traffic beside an old one and are worse: the cause is known."""
    if not settings.canary.automatic:
        return []
    end_ns = span_of(now_ns, settings.detect).end_ns
    level = settings.detect.max_false_discoveries / LOOKS_PER_DAY
    found = []
    for service, old, new, since_ns in released(frames, end_ns):
        beside = frames.between(since_ns + WARM_UP_WINDOWS * WINDOW_NS, end_ns)
        versions = service, old, new, settings.detect, settings.canary
        result = compare(beside, *versions, level)
        if result.verdict == "roll back" and result.side_by_side and _persists(beside, versions):
            found.append(_rollback(result, since_ns))
    return found


def _with_rollbacks(found: Sequence[Diagnosis], worse: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The diagnoses with new versions that are worse; those of one release of several services are part of its."""
    told, alone = list(found), []
    for one in worse:
        (version,) = one.causes
        whole = next((i for i, d in enumerate(told) if d.causes and _is_part(version, d.causes[0])), None)
        if whole is None:
            alone.append(one)
            continue
        release = told[whole].causes[0]
        causes = (replace(release, evidence=(*release.evidence, *version.evidence)), *told[whole].causes[1:])
        told[whole] = replace(told[whole], symptoms=(*told[whole].symptoms, *one.symptoms), causes=causes)
    return [*told, *alone]


def _is_part(version: Cause, release: Cause) -> bool:
    names = release.resource.split(", ")
    return release.kind is CauseKind.RELEASE and version.service in release.services and version.resource in names


def _persists(beside: Frames, versions: tuple[str, str, str, DetectSettings, CanarySettings]) -> bool:
    """Whether every second window says so, and the others, too: one hiccup of 10 s is no bad release."""
    turn = pl.col("window_start_ns") // WINDOW_NS % 2
    halves = (
        replace(beside, windows=beside.windows.filter(turn == odd), tokens=beside.tokens.filter(turn == odd))
        for odd in (0, 1)
    )
    return all(compare(half, *versions, PERSISTS_P).verdict == "roll back" for half in halves)


def horizon_ns(settings: Settings) -> int:
    """How far back a look reaches."""
    detect_settings = settings.detect
    reach_s = detect_settings.baseline_s + detect_settings.current_s + detect_settings.settle_s
    return int(reach_s * SECOND_NS) + WINDOW_NS


def next_look_ns(after_ns: int, settings: Settings) -> int:
    """The first moment after `after_ns` at which a window has just settled."""
    phase = int(settings.detect.settle_s * SECOND_NS) % WINDOW_NS
    return (after_ns - phase) // WINDOW_NS * WINDOW_NS + WINDOW_NS + phase


# ── what is said about a diagnosis ──────────────────────────────────────────────────────────────────────────────────


def _objectives(settings: Settings) -> list[Rule]:
    """Objectives as rules: a burn rate is as bad as its settings say."""
    return [
        Rule(
            name=rule_name(objective, limit),
            service=objective.service,
            measure="error_ratio",
            above=1.0 - objective.target,
            severity=limit.severity,
        )
        for objective in settings.slo.objectives
        for limit in settings.slo.burn_rates
    ]


def _told_by_tokens(shift: Shift, given: Given) -> bool:
    """A histogram of model calls that got slower by their tokens alone."""
    of_calls = shift.kind == METRIC and shift.measure.startswith("latency_") and OF_CALLS.search(shift.operation)
    return bool(of_calls) and shift.service in given.explained and not shift.rule


def _explained(diagnosis: Diagnosis, given: Given) -> bool:
    """Only latency rose, and only because of calls that were asked for more tokens."""
    latency = all(shift.measure.startswith("latency_") and not shift.rule for shift in diagnosis.symptoms)
    causes = diagnosis.causes[1:2] if _unknown(diagnosis) else diagnosis.causes[:1]
    return latency and any(cause.service in given.explained for cause in causes)


def _unknown(diagnosis: Diagnosis) -> bool:
    return bool(diagnosis.causes) and diagnosis.causes[0].kind is CauseKind.UNKNOWN


def _with_reasons(
    diagnosis: Diagnosis, given: Given, burns: Sequence[Burning], by_shift: Mapping[Shift, Season]
) -> Diagnosis:
    """The first cause with what tokens, objectives and earlier days say."""
    if not diagnosis.causes:
        return diagnosis
    first = diagnosis.causes[0]
    more = [Evidence("slo", burn.text) for burn in burns if burn.shift in diagnosis.symptoms]
    if first.service in given.notes:
        more.append(Evidence("tokens", given.notes[first.service]))
    compared = [by_shift[shift] for shift in diagnosis.symptoms if shift in by_shift]
    if compared:
        surest = min(compared, key=lambda s: (s.shift.service != first.service, s.shift.p_value, s.shift.measure))
        numbers = (("low", surest.low), ("high", surest.high), ("cycles", float(surest.out_of)))
        more.append(Evidence("season", unusual_text(surest), numbers))
    causes = (replace(first, evidence=(*first.evidence, *more)), *diagnosis.causes[1:])
    return replace(diagnosis, causes=causes) if more else diagnosis


def _canary_query(result: Comparison) -> str:
    names = {"service": result.service, "baseline": result.baseline, "candidate": result.candidate}
    when = {"from": rfc3339(result.from_ns), "to": rfc3339(result.to_ns)}
    return f"{API_PREFIX}/canary?{urlencode(names | when, safe=':/')}"


def _rollback(result: Comparison, since_ns: int) -> Diagnosis:
    check = worst(result)
    shift = Shift(
        service=result.service,
        operation="",
        kind="Server",
        measure=check.measure,
        before=check.before,
        after=check.after,
        unit=check.unit,
        p_value=check.p_value,
        samples=result.requests[1],
        onset_ns=since_ns,
        rule=f"canary {result.baseline} → {result.candidate}",
        query=_canary_query(result),
    )
    texts = [f"{result.candidate} beside {result.baseline}, same operations and minutes: {t}" for t in result.reasons]
    cause = Cause(
        rank=1,
        kind=CauseKind.VERSION,
        service=result.service,
        resource=result.candidate,
        score=CANARY_SCORE,
        share=1.0,
        path=(result.service,),
        evidence=tuple(Evidence("canary", text) for text in texts),
    )
    return Diagnosis((shift,), (cause,), (), Impact((result.service,), result.requests[1]))
