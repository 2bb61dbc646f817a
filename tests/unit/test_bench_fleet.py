"""The generator itself: what it says happened is what its telemetry shows."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import polars as pl
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from observe.bench.fleet import Fleet, generate
from observe.bench.fleet_plan import FAULTS
from observe.bench.fleet_traffic import Traffic
from tests.benchmarks.reference_frames import frames_of

START_NS = 1_790_000_000_000_000_000
MINUTES = 4.0


@cache
def fleet(seed: int, kind: str) -> Fleet:
    return generate(seed, MINUTES, start_ns=START_NS, kind=kind)


@cache
def exported(seed: int, kind: str) -> list[tuple[dict[str, str], Span]]:
    """(resource, span) of every span in the order of export."""
    found = []
    for signal, body in fleet(seed, kind).requests():
        if signal == "spans":
            [under] = ExportTraceServiceRequest.FromString(body).resource_spans
            [scope] = under.scope_spans
            assert 0 < len(scope.spans) <= 512
            resource = {a.key: a.value.string_value for a in under.resource.attributes}
            found += [(resource, span) for span in scope.spans]
    return found


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first = [body for _, body in generate(1, 1.0, start_ns=START_NS, kind="none").requests()]
    again = [body for _, body in generate(1, 1.0, start_ns=START_NS, kind="none").requests()]
    other = [body for _, body in generate(2, 1.0, start_ns=START_NS, kind="none").requests()]
    assert first == again
    assert first != other


def test_every_span_that_happened_is_exported_once_with_its_parent() -> None:
    case = fleet(3, "errors_service")
    traffic = Traffic(case.plan, case.fault, MINUTES, np.random.default_rng([case.seed, 3]))
    happened: Counter[str] = Counter()
    for _, groups in traffic.chunks():
        for group in groups:
            happened[case.plan.services[case.plan.operations[group.site.operation].service].name] += group.span.size
    spans = exported(3, "errors_service")
    assert Counter(resource["service.name"] for resource, _ in spans) == happened
    ids = {(span.trace_id, span.span_id) for _, span in spans}
    assert len(ids) == len(spans)
    assert all((s.trace_id, s.parent_span_id) in ids for _, s in spans if s.parent_span_id)


def test_spans_lie_within_their_parents_and_in_the_past_that_was_asked_for() -> None:
    spans = exported(3, "errors_service")
    by_id = {span.span_id: span for _, span in spans}
    for _, span in spans:
        assert START_NS <= span.start_time_unix_nano <= span.end_time_unix_nano < START_NS + int((MINUTES + 5) * 60e9)
        parent = by_id.get(span.parent_span_id)
        if parent is not None:
            assert parent.start_time_unix_nano - 1000 <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano + 1000


def test_failed_spans_have_status_and_attributes_of_failures() -> None:
    spans = [span for _, span in exported(3, "errors_service") if span.kind == Span.SPAN_KIND_SERVER]
    failed = [span for span in spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert failed
    codes = {a.value.int_value for s in failed for a in s.attributes if a.key == "http.response.status_code"}
    assert codes == {500}
    assert len(failed) < len(spans)


@pytest.mark.parametrize("kind", [k for k in FAULTS if k not in ("none", "traffic")])
def test_the_fault_is_where_the_truth_says_and_when(kind: str) -> None:
    case = fleet(5, kind)
    truth = case.truth
    assert truth.services
    assert START_NS <= truth.start_ns < truth.end_ns <= case.end_ns
    windows = frames_of(case).windows.filter(pl.col("kind") != "Internal")
    level = pl.struct("service", "operation")
    before = windows.filter(pl.col("window_start_ns") < truth.start_ns - 10**10)
    during = windows.filter(pl.col("window_start_ns").is_between(truth.start_ns, truth.end_ns - 10**10))
    means = [
        w.group_by(level.alias("series")).agg(
            mean_ms=pl.col("duration_sum_ms").sum() / pl.col("requests").sum(),
            error_ratio=pl.col("errors").sum() / pl.col("requests").sum(),
        )
        for w in (before, during)
    ]
    both = means[0].join(means[1], on="series", suffix="_during")
    worse = both.filter(
        (pl.col("mean_ms_during") > 1.15 * pl.col("mean_ms"))
        | (pl.col("error_ratio_during") > pl.col("error_ratio") + 0.01)
    )
    places = {row["service"] for row in worse["series"]}
    callers = {case.plan.services[c].name for s in _services(case) for c in case.plan.callers(s)}
    callers |= {case.plan.services[u].name for u in case.plan.users(case.fault.virtual)}
    assert places & (set(truth.services) | callers)


def test_only_calls_that_fail_carry_a_failure_upwards() -> None:
    case = fleet(7, "crash")
    traffic = Traffic(case.plan, case.fault, MINUTES, np.random.default_rng([case.seed, 3]))
    spans = [group for _, groups in traffic.chunks() for group in groups]
    failed = {
        kind: np.concatenate([g.failed for g in spans if g.site.kind == kind]).mean() for kind in ("internal", "server")
    }
    assert failed["internal"] < 0.01 < failed["server"]


def test_a_fleet_without_a_fault_has_no_truth() -> None:
    truth = fleet(5, "none").truth
    assert (truth.services, truth.resources, truth.start_ns) == ((), (), 0)


def test_gauges_name_hosts_instances_and_gpus_of_the_fleet() -> None:
    case = fleet(5, "gpu")
    gpus = {i.gpu for i in case.plan.instances if i.gpu}
    seen = set()
    for signal, body in case.requests():
        if signal == "metrics":
            [under] = ExportMetricsServiceRequest.FromString(body).resource_metrics
            points = [p for m in under.scope_metrics[0].metrics for p in m.gauge.data_points]
            seen |= {a.value.string_value for p in points for a in p.attributes if a.key in ("hw.id", "UUID")}
    assert seen == gpus
    assert set(case.truth.resources) & gpus


def _services(case: Fleet) -> list[int]:
    return [n for n, s in enumerate(case.plan.services) if s.name in case.truth.services]
