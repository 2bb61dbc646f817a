"""The order of work, from shifts to ranked causes. Pure: the same frames give the same diagnoses, names only label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from observe.diagnose.addresses import resolved
from observe.diagnose.behind import behind
from observe.diagnose.blame import RELEASED, Blamer, blamer
from observe.diagnose.exemplars import exemplars, lost_exemplars
from observe.diagnose.explain import evidence, ruled_out, unknown
from observe.diagnose.graph import Floats, Picture, picture
from observe.diagnose.group import groups
from observe.diagnose.impact import impact
from observe.diagnose.inference import chain
from observe.diagnose.levels import periods, within
from observe.diagnose.metrics_only import diagnose_metrics
from observe.diagnose.narrow import Ground, Place, ground, narrow
from observe.diagnose.paths import path
from observe.diagnose.rank import SUSPECTED, Suspect, confidence, suspects
from observe.diagnose.resources import Finding
from observe.diagnose.series import Series, series
from observe.diagnose.shared import Shared, shared
from observe.diagnose.symptoms import Symptom, symptoms
from observe.diagnose.tails import tails
from observe.frames import Frames
from observe.settings import DiagnoseSettings
from observe.types import Cause, CauseKind, Diagnosis, Evidence, Impact, Shift

RELEASE_STRENGTH = 0.6
"""What a bad release near the onset adds to the confidence in its service: most outages follow a change."""


def diagnose(
    shifts: Sequence[Shift],
    frames: Frames,
    now_ns: int,
    settings: DiagnoseSettings,
    context: Sequence[Shift] = (),
) -> list[Diagnosis]:
    """What explains the shifts: one diagnosis for each set that shares a cause, the one with most symptoms first.

    `frames` must reach back before the earliest onset. `context` are shifts of gauges: they are quoted where they
    belong to a cause, and never are symptoms.
    """
    if not shifts:
        return []
    onset_ns = min(s.onset_ns for s in shifts)
    when = periods(onset_ns, now_ns, frames.selfs)
    if when is None:
        found_by_metrics = diagnose_metrics(shifts, frames, now_ns, settings)
        why = "there is no history before the onset to compare with"
        return [found_by_metrics or _unexplained(tuple(shifts), why)]
    near = within(frames, when)
    near = replace(near, edges=resolved(near.edges, near.selfs))
    light = replace(near, selfs=near.selfs.drop("self_buckets"), edges=near.edges.drop("latency_buckets"))
    view = picture(light, when)
    seen, strangers = symptoms(shifts, view)
    found = _explained(seen, near, light, view, settings, context) if seen else []
    if strangers and not found and (by_metrics := diagnose_metrics(strangers, frames, now_ns, settings)):
        return [by_metrics]
    return _with_strangers(found, strangers)


def _explained(
    seen: list[Symptom],
    frames: Frames,
    light: Frames,
    view: Picture,
    settings: DiagnoseSettings,
    context: Sequence[Shift],
) -> list[Diagnosis]:
    """`light` are the frames without histograms: all but tails and impact read those."""
    given = ground(light, view)
    released = frozenset(n for s in given.releases if (n := view.number(s)) is not None)
    judge = blamer(view, lambda some: tails(frames, view, some), [s.service for s in seen], released)
    alone = [judge.blame(s) for s in seen]
    together = shared(given, view, seen, alone)
    blames = [together.moved(s, blame) for s, blame in zip(seen, alone, strict=True)]
    wanted = np.max(blames, axis=0) > SUSPECTED
    wanted[[s.service for s in seen]] = True
    court = _Court(judge, series(light, judge, wanted), given, together, settings, context)
    found = []
    for group in groups(seen, blames, judge):
        members = [seen[i] for i in group.members]
        felt = impact(members, frames, view)
        found.append(court.diagnosis(members, [blames[i] for i in group.members], felt))
    found.sort(key=lambda d: (-len(d.symptoms), min(s.onset_ns for s in d.symptoms), d.causes[0].service))
    return behind(found)


@dataclass(frozen=True, slots=True)
class _Court:
    """What all diagnoses of one look share."""

    judge: Blamer
    known: Series
    given: Ground
    together: Shared
    settings: DiagnoseSettings
    context: Sequence[Shift]

    def diagnosis(self, members: list[Symptom], blames: list[Floats], felt: Impact) -> Diagnosis:
        judge, most = self.judge, self.settings.max_causes
        ranked = suspects(members, blames, judge, self.known)
        named = ranked[:most]
        causes = sorted((self._cause(s, members) for s in named), key=lambda c: -c.score)
        best = causes[0].score if causes else 0.0
        if best < self.settings.min_confidence:
            top = min(members, key=lambda m: (-m.weight, m.onset_ns, m.service))
            service = judge.picture.name(top.service)
            way = path(service, members, judge)
            causes = [
                Cause(1, CauseKind.UNKNOWN, service, "", best, 0.0, way, (unknown(best),)),
                *causes[: most - 1],
            ]
        return Diagnosis(
            tuple(s for m in members for s in m.shifts),
            tuple(replace(cause, rank=i + 1) for i, cause in enumerate(causes)),
            ruled_out(members, named, ranked[most:], judge, self._folded(named)),
            felt,
        )

    def _cause(self, suspect: Suspect, members: list[Symptom]) -> Cause:
        place, service = self._placed(suspect)
        way = path(service, members, self.judge)
        reasons = [
            *evidence(suspect, place, members, self.judge, self.together.beside(suspect.node)),
            *_quoted(service, self.context, place.device),
        ]
        services = tuple(self.judge.picture.name(n) for n in self.given.hosts.get(place.resource, ()))
        if place.kind is CauseKind.HOST and services:
            text = f"{len(services)} services are slow on {place.resource} only: {', '.join(services)}"
            reasons.insert(0, Evidence("contrast", text, (("services", float(len(services))),)))
        if place.device is not None:
            linked = chain(place.device, way, members, self.given.frames, self.judge.picture)
            reasons = [*reasons[:1], linked, *reasons[1:]] if linked is not None else reasons
        score = confidence(suspect)
        if place.device is not None:
            score = 1 - (1 - score) * (1 - 0.5 * place.device.strength * suspect.share)
        if (place.released or place.train) is not None and suspect.share >= RELEASED:
            score = 1 - (1 - score) * (1 - RELEASE_STRENGTH)
        return Cause(
            rank=0,
            kind=place.kind,
            service=service,
            resource=place.resource,
            score=round(score, 4),
            share=round(min(1.0, suspect.share), 4),
            path=way,
            evidence=tuple(reasons),
            exemplar_trace_ids=self._exemplars(suspect, service, place),
            services=place.train.services if place.train else services if place.kind is CauseKind.HOST else (),
        )

    def _placed(self, suspect: Suspect) -> tuple[Place, str]:
        """Kind and resource, and the service that people should look at."""
        judge, view = self.judge, self.judge.picture
        if suspect.node == judge.outside:
            outside = judge.traffic.outside[1] - judge.traffic.outside[0]
            return Place(CauseKind.TRAFFIC), view.name(int(np.abs(outside).argmax()))
        into = np.flatnonzero(view.edges.callee == suspect.node)
        if suspect.node >= len(view.services):
            rise = view.edges.edge_change_ms[into] * view.nodes.requests[1, view.edges.caller[into]]
            worst = int(into[int(rise.argmax())])
            database = view.edges.connection[worst] == "database"
            kind = CauseKind.DATABASE if database else CauseKind.EXTERNAL
            return Place(kind, suspect.name), view.name(int(view.edges.caller[worst]))
        if (train := self.together.trains.get(suspect.node)) is not None:
            return Place(CauseKind.RELEASE, train.name, train=train), suspect.name
        if host := self.together.host_of(suspect.node, suspect.errors):
            return Place(CauseKind.HOST, host), suspect.name
        lost = bool(np.any(judge.lost[into]))
        place = narrow(self.given, suspect.name, suspect.errors, lost)
        if place.kind is CauseKind.SERVICE and any(view.edges.connection[i] == "database" for i in into.tolist()):
            place = replace(place, kind=CauseKind.DATABASE)
        return place, suspect.name

    def _folded(self, named: Sequence[Suspect]) -> frozenset[int]:
        """Services that a named one stands for."""
        return frozenset[int]().union(*(self.together.beside(s.node) for s in named))

    def _exemplars(self, suspect: Suspect, service: str, place: Place) -> tuple[str, ...]:
        view, selfs = self.judge.picture, self.given.frames.selfs
        if suspect.node >= len(view.services):
            return ()
        lost = np.flatnonzero(self.judge.lost & (view.edges.callee == suspect.node))
        if suspect.errors and len(lost):
            callers = sorted({view.name(int(c)) for c in view.edges.caller[lost]})
            return lost_exemplars(selfs, view.periods, callers)
        return exemplars(selfs, view.periods, service, place, suspect.errors)


def _quoted(service: str, context: Sequence[Shift], device: Finding | None) -> list[Evidence]:
    """Gauges of the service that moved too, the surest first; not those that its device was heard on."""
    heard = {reading.metric for reading in device.readings} if device else set[str]()
    mine = [s for s in context if s.service == service and s.measure not in heard]
    mine.sort(key=lambda s: (s.p_value, s.measure, s.operation))
    said = []
    for s in mine[:3]:
        change = f"{s.measure} of {s.service} went from {s.before:.4g} to {s.after:.4g}"
        text = change if s.unit in ("", "1") else f"{change} {s.unit}"
        said.append(Evidence("resource", text, (("before", s.before), ("after", s.after))))
    return said


def _unexplained(shifts: tuple[Shift, ...], why: str) -> Diagnosis:
    services = tuple(sorted({s.service for s in shifts}))
    cause = Cause(1, CauseKind.UNKNOWN, services[0], "", 0.0, 0.0, (services[0],), (Evidence("unknown", why),))
    return Diagnosis(shifts, (cause,), (), Impact(services, 0))


def _with_strangers(found: list[Diagnosis], strangers: list[Shift]) -> list[Diagnosis]:
    """Shifts of services without spans go with the diagnosis that began nearest in time, else stand alone."""
    if not strangers:
        return found
    if not found:
        return [_unexplained(tuple(strangers), "no spans are known of these services")]
    added: dict[int, list[Shift]] = {}
    for shift in strangers:
        _, k = min((abs(min(s.onset_ns for s in d.symptoms) - shift.onset_ns), i) for i, d in enumerate(found))
        added.setdefault(k, []).append(shift)
    return [replace(d, symptoms=(*d.symptoms, *added.get(i, ()))) for i, d in enumerate(found)]
