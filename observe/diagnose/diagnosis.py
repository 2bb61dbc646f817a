"""The order of work, from shifts to ranked causes. Pure: the same frames give the same diagnoses, names only label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import networkx as nx
import numpy as np
import polars as pl

from observe.diagnose.blame import Blamer, blamer
from observe.diagnose.contrast import sick_hosts
from observe.diagnose.explain import evidence, ruled_out, unknown
from observe.diagnose.graph import Floats, Picture, picture
from observe.diagnose.group import Group, groups
from observe.diagnose.impact import impact
from observe.diagnose.levels import periods, within
from observe.diagnose.narrow import Place, narrow
from observe.diagnose.rank import Suspect, confidence, suspects
from observe.diagnose.series import Series, series
from observe.diagnose.symptoms import Symptom, symptoms
from observe.diagnose.tails import tails
from observe.frames import Frames
from observe.settings import DiagnoseSettings
from observe.types import Cause, CauseKind, Diagnosis, Evidence, Impact, Shift

MAX_EXEMPLARS = 3


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
        return [_unexplained(tuple(shifts), "there is no history before the onset to compare with")]
    frames = within(frames, when)
    view = picture(frames, when)
    seen, strangers = symptoms(shifts, view)
    found = _explained(seen, frames, view, settings, context) if seen else []
    return _with_strangers(found, strangers)


def _explained(
    seen: list[Symptom], frames: Frames, view: Picture, settings: DiagnoseSettings, context: Sequence[Shift]
) -> list[Diagnosis]:
    judge = blamer(view, lambda: tails(frames, view), [s.service for s in seen])
    blames = [judge.blame(s) for s in seen]
    hosts = _sick_hosts(frames, view)
    blames = [_shared(b, hosts, view) for b in blames]
    known = series(frames, view, judge.owner)
    found = [
        _diagnosis(
            group,
            [seen[i] for i in group.members],
            [blames[i] for i in group.members],
            judge,
            known,
            frames,
            hosts,
            settings,
            context,
        )
        for group in groups(seen, blames, judge)
    ]
    return sorted(found, key=lambda d: (-len(d.symptoms), min(s.onset_ns for s in d.symptoms), d.causes[0].service))


def _sick_hosts(frames: Frames, view: Picture) -> dict[str, list[int]]:
    """Host → numbers of the services that suffer on it alone."""
    found = sick_hosts(frames.selfs, view.periods)
    return {
        host: numbers
        for host, services in found.items()
        if len(numbers := [n for s in services if (n := view.number(s)) is not None]) >= 2
    }


def _shared(blame: Floats, hosts: dict[str, list[int]], view: Picture) -> Floats:
    """Blame of services that suffer on one host only moves to one of them, which then stands for the host."""
    moved = blame.copy()
    for numbers in hosts.values():
        first = _stands_for(numbers, view)
        total = moved[numbers].sum()
        moved[numbers] = 0.0
        moved[first] = total
    return moved


def _stands_for(numbers: list[int], view: Picture) -> int:
    """The service that lost most time on the host."""
    nodes = view.nodes
    return max(numbers, key=lambda n: (float(nodes.speed_ms[n] * nodes.requests[1, n]), view.name(n)))


def _diagnosis(
    group: Group,
    members: list[Symptom],
    blames: list[Floats],
    judge: Blamer,
    known: Series,
    frames: Frames,
    hosts: dict[str, list[int]],
    settings: DiagnoseSettings,
    context: Sequence[Shift],
) -> Diagnosis:
    shifts = tuple(s for m in members for s in m.shifts)
    felt = impact(members, frames, judge.picture)
    ranked = suspects(members, blames, judge, known)
    named = ranked[: settings.max_causes]
    causes = [_cause(s, members, judge, frames, hosts, context) for s in named]
    causes.sort(key=lambda c: -c.score)
    best = causes[0].score if causes else 0.0
    if best < settings.min_confidence:
        top = min(members, key=lambda m: (-m.weight, m.onset_ns, m.service))
        service = judge.picture.name(top.service)
        causes = [
            Cause(1, CauseKind.UNKNOWN, service, "", best, 0.0, (service,), (unknown(best),)),
            *causes[: settings.max_causes - 1],
        ]
    causes = [replace(cause, rank=i + 1) for i, cause in enumerate(causes)]
    return Diagnosis(shifts, tuple(causes), ruled_out(members, named, ranked[settings.max_causes :], judge), felt)


def _cause(
    suspect: Suspect,
    members: list[Symptom],
    judge: Blamer,
    frames: Frames,
    hosts: dict[str, list[int]],
    context: Sequence[Shift],
) -> Cause:
    place, service = _placed(suspect, judge, frames, hosts)
    reasons = [*evidence(suspect, place, members, judge), *_quoted(service, context)]
    on_host = next((h for h, numbers in hosts.items() if suspect.node in numbers), "")
    if on_host:
        others = ", ".join(judge.picture.name(n) for n in hosts[on_host])
        reasons.insert(0, Evidence("contrast", f"{len(hosts[on_host])} services are slow on {on_host} only: {others}"))
    score = confidence(suspect)
    if place.device is not None:
        score = 1 - (1 - score) * (1 - 0.5 * place.device.strength * suspect.share)
    traces = (
        ()
        if suspect.node >= len(judge.picture.services)
        else _exemplars(frames, judge.picture, service, place, suspect.errors)
    )
    return Cause(
        rank=0,
        kind=place.kind,
        service=service,
        resource=place.resource,
        score=round(score, 4),
        share=round(min(1.0, suspect.share), 4),
        path=_path(suspect, service, members, judge),
        evidence=tuple(reasons),
        exemplar_trace_ids=traces,
    )


def _placed(suspect: Suspect, judge: Blamer, frames: Frames, hosts: dict[str, list[int]]) -> tuple[Place, str]:
    """Kind and resource, and the service that people should look at."""
    view = judge.picture
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
    for host, numbers in hosts.items():
        if suspect.node in numbers:
            return Place(CauseKind.HOST, host), suspect.name
    place = narrow(frames, view, suspect.name, suspect.errors)
    if place.kind is CauseKind.SERVICE and any(view.edges.connection[i] == "database" for i in into.tolist()):
        place = replace(place, kind=CauseKind.DATABASE)
    return place, suspect.name


def _quoted(service: str, context: Sequence[Shift]) -> list[Evidence]:
    """Gauges of the service that moved too, the surest first."""
    mine = sorted((s for s in context if s.service == service), key=lambda s: (s.p_value, s.measure, s.operation))
    return [
        Evidence("resource", f"{s.measure} of {s.service} went from {s.before:.4g} to {s.after:.4g} {s.unit}".rstrip())
        for s in mine[:3]
    ]


def _path(suspect: Suspect, service: str, members: list[Symptom], judge: Blamer) -> tuple[str, ...]:
    """Services from the symptom that is farthest up to the cause, along the edges that carry most of the change."""
    view = judge.picture
    target = view.number(service)
    if target is None:
        return (service,)
    weights = 1.0 / (0.01 + np.maximum(view.edges.below_change_ms, 0.0) + np.maximum(view.edges.edge_change_ms, 0.0))
    best: list[int] = [target]
    for start in sorted({m.service for m in members}):
        if start == target or not nx.has_path(view.graph, start, target):
            continue
        way = nx.dijkstra_path(view.graph, start, target, weight=lambda u, v, d: float(weights[d["edge"]]))
        best = max(best, way, key=len)
    return tuple(view.name(n) for n in best)


def _exemplars(frames: Frames, view: Picture, service: str, place: Place, errors: bool) -> tuple[str, ...]:
    """Traces to look at: those of the windows in which the guilty spans were slowest, or in which errors began."""
    rows = frames.selfs.filter((pl.col("service") == service) & (pl.col("kind") != "Client")).with_columns(
        view.periods.mark()
    )
    rows = rows.filter(pl.col("period") == 1)
    column = {CauseKind.INSTANCE: "instance", CauseKind.VERSION: "version", CauseKind.HOST: "host"}.get(place.kind)
    if column:
        rows = rows.filter(pl.col(column) == place.resource)
    name, by = ("error_trace_id", "origin_errors") if errors else ("slowest_trace_id", "self_sum_ms")
    worst = rows.filter(pl.col(name) != "").sort(
        pl.col(by) / pl.col("requests"), name, descending=[True, False], maintain_order=True
    )
    return tuple(worst[name].unique(maintain_order=True).head(MAX_EXEMPLARS).to_list())


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
