"""Systems that send metrics and no spans: the same diagnoses, from gauges, histograms and whatever graph is known.

Who calls whom comes from `diagnose.calls` in the settings, from metrics that say so (the service graphs of Tempo and
the Collector, Istio's requests), or from nowhere. The ranking is the one for recorded cases (`offline`): what a service
felt beyond what its callees passed on, and resources that moved more than traffic explains.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import polars as pl

from observe.diagnose.compare import Question, compare
from observe.diagnose.levels import GUARD_NS, Periods
from observe.diagnose.offline import Case, Ranked, rank
from observe.diagnose.offline.case import SPAN_COLUMNS
from observe.diagnose.offline.names import kind_of
from observe.diagnose.resources import findings
from observe.frames import Frames
from observe.settings import DiagnoseSettings
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Evidence, Impact, RuledOut, Shift

LEAST_RISE = 1.3
"""A latency or error gauge that rose by less is no symptom by itself."""
SURE = 1e-6
MAX_STEP_NS = 6 * WINDOW_NS
"""Exporters send at least every minute; series that come more seldom have gaps."""
SAID_FROM = 0.2
DEVICE = 0.5
MAX_RULED_OUT = 5
_GRAPHS = r"^(?:traces_service_graph_request_total|istio_requests_total)$"
_ENDS = (("client", "server"), ("source_workload", "destination_workload"), ("source_app", "destination_app"))
_SAYS = {
    "own": "what it felt is not explained by what it calls",
    "resource": "its use of resources moved more than its traffic explains, and more than elsewhere",
    "outward": "its callers, by their own clocks, wait longer for whom they call",
    "any": "its metrics moved",
}


_MACHINERY = re.compile(
    r"^(?:system|process|hw|node|container|kube\w*|k8s|go|python|jvm|dotnet|nodejs|v8js|nv|gpu|otelcol|observe|scrape|up"
    r"|prometheus|target|cloud|machine)(?:[._:]|$)|^DCGM_|runtime"
)
"""What machines and runtimes say of themselves: a busy disk is no user's wait, and an idle host must stay quiet."""


def symptoms(gauges: Sequence[Shift]) -> list[Shift]:
    """Of shifted gauges, those that users feel: latencies and errors that rose clearly, success that fell."""
    found = []
    for shift in gauges:
        kind = kind_of(shift.measure)
        worse = shift.after < shift.before if kind == "success" else shift.after > LEAST_RISE * shift.before
        if _MACHINERY.search(shift.measure):
            continue
        if kind in ("latency", "errors", "success") and worse and shift.p_value <= SURE and shift.service:
            found.append(shift)
    return found


def diagnose_metrics(
    shifts: Sequence[Shift], frames: Frames, now_ns: int, settings: DiagnoseSettings, anywhere: bool = False
) -> Diagnosis | None:
    """What explains the shifts; None where no metric reaches back before them. `anywhere`: only their time counts."""
    onset_ns = min(s.onset_ns for s in shifts) // WINDOW_NS * WINDOW_NS
    series = recorded_series(frames)
    when = _periods(series, onset_ns, now_ns)
    if when is None:
        return None
    graph = known_graph(frames, settings)
    noticed = replace(shifts[0], service="", measure="") if anywhere else _noticed(shifts, graph)
    ranked = rank(recorded_case(series, graph, noticed, onset_ns))
    court = _Court(frames, when, series, graph, noticed)
    named = [court.cause(ranked, i) for i in range(min(settings.max_causes, len(ranked.services)))]
    named = [c for c in named if c.score > 0]
    best = named[0].score if named else 0.0
    if best < settings.min_confidence:
        why = Evidence(
            "unknown", f"the best explanation reaches a confidence of {best:.2f} only", (("confidence", best),)
        )
        where = noticed.service or (named[0].service if named else shifts[0].service)
        unknown = Cause(0, CauseKind.UNKNOWN, where, "", best, 0.0, (where,), (why,))
        named = [unknown, *named[: settings.max_causes - 1]]
    causes = tuple(
        Cause(i + 1, c.kind, c.service, c.resource, c.score, c.share, c.path, c.evidence) for i, c in enumerate(named)
    )
    return Diagnosis(tuple(shifts), causes, court.ruled_out(ranked, shifts, causes), court.impact(shifts))


def known_graph(frames: Frames, settings: DiagnoseSettings) -> nx.DiGraph:
    """Who calls whom, from the settings, from metrics that name both ends, and from spans of others."""
    graph = nx.DiGraph()
    graph.add_edges_from(tuple(part.strip() for part in call.split("->")) for call in settings.calls)
    graph.add_edges_from(frames.edges.select("caller", "callee").unique().sort("caller", "callee").iter_rows())
    labels = frames.gauges.filter(pl.col("metric").str.contains(_GRAPHS))["labels"].unique().sort().to_list()
    for text in labels:
        known = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        ends = next(((known[a], known[b]) for a, b in _ENDS if known.get(a) and known.get(b)), None)
        if ends is not None and "unknown" not in ends and ends[0] != "user":
            graph.add_edge(*ends)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


def recorded_series(frames: Frames) -> pl.DataFrame:
    """window_start_ns, service, series (name and place in one text), value, metric, hw_id, host, instance, labels."""
    place = [pl.col(name) for name in ("metric", "hw_id", "host", "instance", "labels")]
    parts = [pl.when(c != "").then(pl.format(f"{c.meta.output_name()}={{}}", c)) for c in place[1:4]]
    told = pl.concat_list(*parts, pl.when(pl.col("labels") != "").then("labels")).list.drop_nulls().list.join(",")
    braced = pl.concat_str("metric", pl.lit("{"), told, pl.lit("}"))
    gauges = (
        frames.gauges.lazy()
        .filter((pl.col("service") != "") & ~pl.col("metric").str.contains(_GRAPHS) & pl.col("value_avg").is_finite())
        .select(
            "window_start_ns",
            "service",
            pl.when(told != "").then(braced).otherwise("metric").alias("series"),
            pl.col("value_avg").alias("value"),
            *place,
        )
    )
    sums = (
        frames.windows.lazy()
        .filter((pl.col("kind") == "Metric") & (pl.col("requests") > 0))
        .group_by("window_start_ns", "service", "operation")
        .agg(pl.col("duration_sum_ms").sum(), pl.col("requests").sum().cast(pl.Float64))
    )
    nowhere = [pl.lit("").alias(name) for name in ("metric", "hw_id", "host", "instance", "labels")]
    mean = sums.select(
        "window_start_ns", "service", pl.col("operation").alias("series"),
        (pl.col("duration_sum_ms") / pl.col("requests")).alias("value"), *nowhere,
    )  # fmt: skip
    count = sums.select(
        "window_start_ns", "service", pl.format("{}_count", "operation").alias("series"),
        pl.col("requests").alias("value"), *nowhere,
    )  # fmt: skip
    return pl.concat([gauges, mean, count]).sort("window_start_ns", "service", "series").collect()


def _periods(series: pl.DataFrame, onset_ns: int, now_ns: int) -> Periods | None:
    starts = series["window_start_ns"].to_numpy()
    if not len(starts) or int(starts.min()) >= onset_ns - GUARD_NS:
        return None
    end_ns = min(int(starts.max()), now_ns) // WINDOW_NS * WINDOW_NS + WINDOW_NS
    return Periods(int(starts.min()), onset_ns - GUARD_NS, onset_ns, end_ns) if end_ns > onset_ns else None


def recorded_case(
    series: pl.DataFrame, graph: nx.DiGraph, noticed: Shift, onset_ns: int, sample: pl.DataFrame | None = None
) -> Case:
    """The recorded case of these windows, on steps as long as its series come; `sample` is SPAN_SAMPLE."""
    step_ns = _step_ns(series)
    at = (pl.col("window_start_ns") - onset_ns).floordiv(step_ns) * step_ns + onset_ns
    metrics = (
        series.group_by((at / 1e9).alias("time_s"), "service", pl.col("series").alias("metric"))
        .agg(pl.col("value").mean())
        .sort("time_s", "service", "metric")
    )
    edges = pl.DataFrame(list(graph.edges), schema={"caller": pl.String, "callee": pl.String}, orient="row")
    named = series.filter((pl.col("service") == noticed.service) & (pl.col("metric") == noticed.measure))["series"]
    metric = str(named[0]) if len(named) else noticed.operation if noticed.measure.startswith("latency_") else ""
    before, after = spans_of(sample)
    return Case(onset_ns / 1e9, metrics, before, after, edges, noticed.service, metric)


def spans_of(sample: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """SPAN_SAMPLE as the spans of a recorded case: before, after."""
    if sample is None:
        nothing = pl.DataFrame(schema=SPAN_COLUMNS)
        return nothing, nothing
    before, after = (sample.filter(pl.col("period") == period).drop("period") for period in (0, 1))
    return before, after


def _step_ns(series: pl.DataFrame) -> int:
    """What nine in ten series are sent within, in whole windows."""
    apart = (
        series.group_by("service", "series")
        .agg(gap=pl.col("window_start_ns").diff().median())
        .select(pl.col("gap").quantile(0.9, interpolation="higher"))
        .item()
    )
    gap_ns = WINDOW_NS if apart is None else int(apart)
    return min(MAX_STEP_NS, max(WINDOW_NS, -(-gap_ns // WINDOW_NS) * WINDOW_NS))


def _noticed(shifts: Sequence[Shift], graph: nx.DiGraph) -> Shift:
    """The symptom nearest to users: none of the others' services calls its own; then the surest."""
    there = {s.service for s in shifts}

    def below(service: str) -> bool:
        return service in graph and bool(nx.ancestors(graph, service) & there - {service})

    return min(shifts, key=lambda s: (below(s.service), s.p_value, s.onset_ns, s.service, s.measure))


def ranked_metric(frames: Frames, when: Periods, recorded: pl.DataFrame, service: str, series: str) -> Evidence | None:
    """The series that moved most clearly, before and after."""
    rows = recorded.filter((pl.col("service") == service) & (pl.col("series") == series))
    if not rows.height:
        return None
    name, hw_id, host, instance, labels = rows.select("metric", "hw_id", "host", "instance", "labels").row(0)
    if name:
        asked = Question("metric", when, service, metric=name, hw_id=hw_id, host=host, instance=instance, labels=labels)
        numbers, query = dict(compare(frames, asked)), asked.query
    else:
        marked = rows.with_columns(when.mark())
        levels = (marked.filter(pl.col("period") == p)["value"].to_numpy() for p in (0, 1))
        numbers = {n: float(v.mean()) for n, v in zip(("before", "after"), levels, strict=True) if len(v)}
        query = ""
    if not {"before", "after"} <= numbers.keys() or not np.isfinite(list(numbers.values())).all():
        return None
    verb = "rose" if numbers["after"] >= numbers["before"] else "fell"
    text = f"{series} of {service} {verb} from {numbers['before']:.4g} to {numbers['after']:.4g}"
    return Evidence("metrics", text, tuple(numbers.items()), query)


@dataclass(frozen=True, slots=True)
class _Court:
    frames: Frames
    when: Periods
    series: pl.DataFrame
    graph: nx.DiGraph
    noticed: Shift

    def cause(self, ranked: Ranked, at: int) -> Cause:
        service, score = ranked.services[at], float(ranked.score[at])
        metric = ranked_metric(self.frames, self.when, self.series, service, ranked.metric[at])
        said = [] if metric is None else [metric]
        said += [
            Evidence("metrics", f"{_SAYS[kind]}: {values[at]:.2f} of 1", ((kind, float(values[at])),))
            for kind, values in sorted(ranked.evidence.items(), key=lambda item: -item[1][at])
            if kind in _SAYS and values[at] >= SAID_FROM
        ]
        mine = self.series.filter(pl.col("service") == service)
        places = ({v for v in mine[name].unique().to_list() if v} for name in ("instance", "host"))
        device = next(iter(findings(self.frames.gauges, self.when, service, *places)), None)
        kind, resource = CauseKind.SERVICE, ""
        if device is not None:
            name = device.hw_id or device.instance or device.host or service
            for reading in device.readings:
                asked = Question(
                    "metric", self.when, metric=reading.metric, hw_id=reading.hw_id, host=reading.host,
                    instance=reading.instance, labels=reading.labels,
                )  # fmt: skip
                said.append(Evidence("resource", f"{name}: {reading.text}", reading.numbers, asked.query))
            if device.hw_id and device.strength >= DEVICE:
                kind, resource = CauseKind.GPU, device.hw_id
        return Cause(at + 1, kind, service, resource, round(score, 4), 0.0, self._path(service), tuple(said))

    def _path(self, service: str) -> tuple[str, ...]:
        if service == self.noticed.service:
            return (service,)
        try:
            return tuple(nx.shortest_path(self.graph, self.noticed.service, service))
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            return (service,) if self.graph.number_of_edges() else (self.noticed.service, service)

    def ruled_out(self, ranked: Ranked, shifts: Sequence[Shift], causes: Sequence[Cause]) -> tuple[RuledOut, ...]:
        """Services that show a symptom and are not named, with how little speaks against them."""
        named = {c.service for c in causes if c.kind is not CauseKind.UNKNOWN and c.rank == 1}
        own = dict(zip(ranked.services, ranked.evidence["own"], strict=True))
        found = [
            RuledOut(s, "", f"of what it felt, {own.get(s, 0.0):.2f} of 1 is its own", (("own", own.get(s, 0.0)),))
            for s in sorted({s.service for s in shifts} - named)
        ]
        return tuple(found[:MAX_RULED_OUT])

    def impact(self, shifts: Sequence[Shift]) -> Impact:
        """Services with a symptom, and all that call them."""
        there = {s.service for s in shifts}
        above = (nx.ancestors(self.graph, s) for s in there if s in self.graph)
        return Impact(tuple(sorted(there.union(*above))), 0)
