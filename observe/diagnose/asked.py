"""What happened at a moment that somebody names, whether or not anything fired then.

An incident begins with a shift that cannot be chance. Here a person says when, and maybe where, it hurt: the levels
before and after are compared at that moment, once, and what stands out is explained twice. The live diagnosis splits
the change of what was noticed over all that it waits for. The ranking of recorded cases (`offline`) reads some whole
traces and every metric: calls that are no longer made and resources that moved accuse where no request got slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import polars as pl
from scipy import stats

from observe.diagnose.addresses import resolved
from observe.diagnose.attributes import Ask
from observe.diagnose.compare import Question
from observe.diagnose.diagnosis import diagnose
from observe.diagnose.graph import collapsed_edges, collapsed_selfs, entries
from observe.diagnose.levels import Periods, levels, periods, within
from observe.diagnose.logged import Complaint, blame, complaints, heard, question
from observe.diagnose.metrics_only import diagnose_metrics, known_graph, ranked_metric, recorded_case, recorded_series
from observe.diagnose.offline import Ranked, rank
from observe.diagnose.offline.stops import Stop
from observe.diagnose.structure import early_ends, sentence, traces
from observe.frames import Frames
from observe.settings import DiagnoseSettings
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Evidence, Impact, Shift

CLEAR = 4.0
"""Standard errors from which on a change of level stands out; a moment is looked at once, and chance has few tries."""
LEAST_RISE = 0.1
LEAST_ERRORS = 0.005
LEAST_TRAFFIC = 0.3
MAX_NOTICED = 20
LOGS_TRUST = 0.4
"""How far errors are believed that a service began to log: what it complains of may be somebody else's."""
LIVE_TRUST = 0.5
"""What the live diagnosis adds beside the ranking, of what it is sure of itself."""
SAID_FROM = 0.2


@dataclass(frozen=True, slots=True)
class Moment:
    """`at_ns` is when it began, as somebody says; `service` is where it was noticed, "" for wherever users come in."""

    at_ns: int
    service: str = ""


def asked(
    moment: Moment, frames: Frames, now_ns: int, settings: DiagnoseSettings, ask: Ask | None = None
) -> Diagnosis | None:
    """What explains the change at that moment; None where there is nothing before it, or nothing after.

    `frames` reach back well before the moment, and end at `now_ns`. `ask` gives samples of whole traces.
    """
    onset_ns = moment.at_ns // WINDOW_NS * WINDOW_NS
    when = periods(onset_ns, now_ns, frames.selfs)
    if when is None:
        return _by_metrics(moment, frames, onset_ns, now_ns, settings)
    seen = noticed(frames, when, moment.service)
    if not seen:
        return None
    # What got better is a consequence of trouble (requests that end early are quick), and would accuse who is spared.
    worse = [s for s in seen if s.after > s.before and s.measure != "requests_per_s" and _clear(s)]
    found = diagnose(worse, frames, now_ns, settings)
    sample = None if ask is None else ask(traces(frames, when, seen[0].service))
    stops = {} if sample is None else early_ends(sample)
    complained = _complaints(ask, when)
    series, graph = recorded_series(frames), known_graph(frames, settings)
    ranked = rank(recorded_case(series, graph, seen[0], onset_ns, sample))
    court = _Court(frames, when, series, graph, ranked, stops, complained, [c for d in found for c in d.causes])
    causes = court.causes(settings.max_causes, settings.min_confidence, seen[0].service)
    ruled_out = tuple(r for d in found for r in d.ruled_out if r.service not in {c.service for c in causes})
    return Diagnosis(tuple(seen), causes, ruled_out, _impact(found))


def noticed(frames: Frames, when: Periods, service: str) -> list[Shift]:
    """What stands out, at the service that was named or anywhere; else how its requests, or those that come in from
    outside, changed. The first one is what users feel most."""
    near = within(frames, when)
    near = replace(near, edges=resolved(near.edges, near.selfs))
    edges = collapsed_edges(near.edges, when)
    rows = entries(collapsed_selfs(near.selfs, when), edges)
    table = levels(rows, ["service"], "requests", "duration_sum_ms", ["errors"]).sort("service")
    table = table.filter((pl.col("service") == service) if service else pl.lit(True))
    if table.is_empty():
        return []
    called = set(edges["callee"].unique().to_list())
    shifts = [shift for row in table.iter_rows(named=True) for shift in _shifts(row, when)]
    clear = [s for s in shifts if _clear(s)]
    outer = [s for s in shifts if s.service not in called] or shifts
    first = max(outer, key=lambda s: (s in clear, s.measure == "error_ratio", s.samples, s.service, s.measure))
    rest = sorted((s for s in clear if s != first), key=lambda s: (s.p_value, -s.samples, s.service, s.measure))
    return [first, *rest[: MAX_NOTICED - 1]]


def _clear(shift: Shift) -> bool:
    return shift.p_value <= float(2 * stats.norm.sf(CLEAR))


def _shifts(row: dict[str, float | str | None], when: Periods) -> list[Shift]:
    """Latency, errors and traffic of one service, before and after; the probability says how clear each change is."""

    def of(name: str) -> float:
        value = row[name]
        return float(value) if isinstance(value, int | float) and np.isfinite(value) else 0.0

    n0, n1 = of("n0"), of("n1")
    change, error = of("change"), of("error")
    z = change / error if error > 0 and abs(change) > LEAST_RISE * of("mean0") else 0.0
    found = [("latency_mean_ms", of("mean0"), of("mean1"), "ms", abs(z))] if n0 and n1 else []
    rates = of("errors0") / max(n0, 1.0), of("errors1") / max(n1, 1.0)
    pooled = (of("errors0") + of("errors1") + 0.5) / (n0 + n1 + 1.0)
    spread = (pooled * (1 - pooled) * (1 / max(n0, 1.0) + 1 / max(n1, 1.0))) ** 0.5
    if rates[1] - rates[0] > LEAST_ERRORS:
        found.append(("error_ratio", *rates, "1", (rates[1] - rates[0]) / spread))
    per_s = n0 / max(when.before_s, 1.0), n1 / max(when.after_s, 1.0)
    if abs(per_s[1] - per_s[0]) > LEAST_TRAFFIC * max(per_s):
        spread = (n0 / max(when.before_s, 1.0) ** 2 + n1 / max(when.after_s, 1.0) ** 2 + 1e-12) ** 0.5
        found.append(("requests_per_s", *per_s, "{request}/s", abs(per_s[1] - per_s[0]) / spread / 2))
    service = str(row["service"])
    return [
        Shift(
            service,
            "",
            "Server",
            measure,
            before,
            after,
            unit,
            float(2 * stats.norm.sf(z)),
            round(n1),
            when.after_from_ns,
            query=Question("duration_ms" if unit == "ms" else measure, when, service).query,
        )
        for measure, before, after, unit, z in found
    ]


def _by_metrics(
    moment: Moment, frames: Frames, onset_ns: int, now_ns: int, settings: DiagnoseSettings
) -> Diagnosis | None:
    """Where no spans are stored: the ranking alone."""
    named = frames.gauges["service"].unique().drop_nulls().sort().to_list()
    service = moment.service or next((name for name in named if name), "")
    if not service or frames.selfs.height:
        return None
    shift = Shift(service, "", "Metric", "", 0.0, 0.0, "", 1.0, 0, onset_ns)
    return diagnose_metrics([shift], frames, now_ns, settings, anywhere=not moment.service)


def _complaints(ask: Ask | None, when: Periods) -> tuple[list[Complaint], Mapping[str, tuple[Evidence, ...]]]:
    """What services say of their errors since then, and in words."""
    if ask is None:
        return [], {}
    asked_for = question((), when)
    found = complaints(ask(asked_for), asked_for)
    return found, heard(found, asked_for)


def _impact(found: Sequence[Diagnosis]) -> Impact:
    services = sorted({s for d in found for s in d.impact.services})
    return Impact(tuple(services), max((d.impact.requests_affected for d in found), default=0))


@dataclass(frozen=True, slots=True)
class _Court:
    frames: Frames
    when: Periods
    series: pl.DataFrame
    graph: nx.DiGraph
    ranked: Ranked
    stops: Mapping[str, Stop]
    complained: tuple[list[Complaint], Mapping[str, tuple[Evidence, ...]]]
    live: list[Cause]

    def causes(self, most: int, least: float, noticed: str) -> tuple[Cause, ...]:
        """Services by both opinions together, as far as either says anything."""
        by_rank = dict(zip(self.ranked.services, self.ranked.score, strict=True))
        named = {c.service: c for c in reversed(self.live) if c.kind is not CauseKind.UNKNOWN and c.service}
        logs = blame(self.complained[0], self.graph)
        scores = {
            s: 1
            - (1 - by_rank.get(s, 0.0))
            * (1 - LIVE_TRUST * (named[s].score if s in named else 0.0))
            * (1 - LOGS_TRUST * logs.get(s, 0.0))
            for s in {*by_rank, *named, *logs}
        }
        order = sorted(scores, key=lambda s: (-round(scores[s], 9), s))
        found = [self._cause(s, scores[s], named.get(s), noticed) for s in order[:most] if scores[s] > 0]
        best = found[0].score if found else 0.0
        if best < least:
            text = f"the best explanation reaches a confidence of {best:.2f} only"
            why = Evidence("unknown", text, (("confidence", best),))
            unknown = Cause(0, CauseKind.UNKNOWN, noticed, "", best, 0.0, (noticed,), (why,))
            found = [unknown, *found[: most - 1]]
        return tuple(replace(cause, rank=i + 1) for i, cause in enumerate(found))

    def _cause(self, service: str, score: float, live: Cause | None, noticed: str) -> Cause:
        logs = self.complained[1].get(service, ())
        said = [*self._said(service), *logs, *(live.evidence if live is not None else ())]
        if live is not None:
            return replace(live, score=round(score, 4), evidence=tuple(said))
        return Cause(0, CauseKind.SERVICE, service, "", round(score, 4), 0.0, self._path(service, noticed), tuple(said))

    def _path(self, service: str, noticed: str) -> tuple[str, ...]:
        try:
            return tuple(nx.shortest_path(self.graph, noticed, service))
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            return (service,)

    def _said(self, service: str) -> list[Evidence]:
        if service not in self.ranked.services:
            return []
        at = self.ranked.services.index(service)
        values = {kind: float(row[at]) for kind, row in self.ranked.evidence.items()}
        found = []
        if (stop := self.stops.get(service)) is not None and values.get("stops", 0.0) >= SAID_FROM:
            found.append(sentence(stop))
        for kind, text in _SAYS.items():
            if values.get(kind, 0.0) >= SAID_FROM:
                found.append(Evidence("structure", f"{text}: {values[kind]:.2f} of 1", ((kind, values[kind]),)))
        if max(values.get("resource", 0.0), values.get("own", 0.0), values.get("silence", 0.0)) >= SAID_FROM:
            metric = ranked_metric(self.frames, self.when, self.series, service, self.ranked.metric[at])
            found += [metric] if metric is not None else []
        return found


_SAYS = {
    "waiting": "of what requests wait longer for, this much is its own",
    "news": "it does what it never did before",
    "silence": "what it always reported is gone",
    "outward": "its callers, by their own clocks, wait longer for whom they call",
}
