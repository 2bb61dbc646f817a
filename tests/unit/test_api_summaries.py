import math
import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe import summaries
from observe.errors import BadRecord
from observe.frames import BUCKETS, EDGE_WINDOWS, GAUGE_WINDOWS, SELF_WINDOWS, SERVICE_WINDOWS, Frames
from observe.gpus import gpus
from observe.quantiles import MAX_RELATIVE_ERROR, bucket_of_ms, merged, quantiles
from observe.types import WINDOW_NS, Cause, CauseKind, Impact, Incident, Severity, State

T0 = 1_800_000_000 * 10**9


def frame(schema, rows):
    defaults = {"version": "", "instance": "", "host": "", "hw_id": "", "labels": "", "unit": "", "operation": ""}
    known = [{name: row.get(name, defaults.get(name)) for name in schema} for row in rows]
    return pl.DataFrame(known, schema=schema)


def frames(windows=(), selfs=(), edges=(), gauges=()):
    return Frames(
        frame(SERVICE_WINDOWS, windows),
        frame(SELF_WINDOWS, selfs),
        frame(EDGE_WINDOWS, edges),
        frame(GAUGE_WINDOWS, gauges),
    )


def window(at, service, operation, kind, requests, errors, latency_ms, version="1"):
    bucket = math.ceil(math.log2(latency_ms) * 16) - 1
    return {
        "window_start_ns": T0 + at * WINDOW_NS,
        "service": service,
        "operation": operation,
        "kind": kind,
        "version": version,
        "requests": requests,
        "errors": errors,
        "duration_sum_ms": requests * latency_ms,
        "latency_buckets": [{"bucket": bucket, "count": requests}],
    }


def edge(caller, callee, connection, calls, errors=0, client_sum_ms=None, server_sum_ms=None):
    return {
        "window_start_ns": T0,
        "caller": caller,
        "caller_operation": "x",
        "callee": callee,
        "callee_operation": "y",
        "connection": connection,
        "calls": calls,
        "errors": errors,
        "client_sum_ms": client_sum_ms,
        "server_sum_ms": server_sum_ms,
        "latency_buckets": [{"bucket": 100, "count": calls}],
    }


def incident(service, state=State.FIRING, onset_ns=T0, resolved_ns=None, affected=("gateway",)):
    cause = Cause(1, CauseKind.SERVICE, service, "", 0.9, 0.8, ("gateway", service))
    return Incident(
        "i1", 1, state, Severity.CRITICAL, "slow", onset_ns, onset_ns, onset_ns, resolved_ns, (), (cause,),
        impact=Impact(tuple(affected), 10),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e7), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_of_buckets_is_within_the_promised_error_of_the_exact_one(values, level):
    exact = sorted(values)[max(1, math.ceil(level * len(values) - 1e-9)) - 1]
    counted = (
        pl.DataFrame({"v": values})
        .group_by(bucket_of_ms(pl.col("v")).alias("bucket"))
        .agg(pl.len().cast(pl.UInt64).alias("count"))
        .select(pl.struct("bucket", "count").implode().cast(BUCKETS).alias("latency_buckets"), service=pl.lit("s"))
    )
    answer = quantiles(counted, ["service"], {"q": level})["q"][0]
    assert answer == pytest.approx(exact, rel=MAX_RELATIVE_ERROR + 1e-9)


def test_merging_histograms_in_any_order_gives_the_same_quantiles():
    rows = [window(i, "s", "o", "Server", 1 + i % 3, 0, 10 + 7 * i) for i in range(20)]
    random.Random(1).shuffle(rows)
    whole = frames(rows).windows
    halves = pl.concat([merged(whole[:7], ["service"]), merged(whole[7:], ["service"])])
    levels = {"p50": 0.5, "p99": 0.99}
    assert quantiles(halves, ["service"], levels).equals(quantiles(whole, ["service"], levels))


def test_groups_without_requests_have_no_quantile():
    rows = frames([window(0, "s", "o", "Server", 0, 0, 10)]).windows.with_columns(
        latency_buckets=pl.lit([], dtype=BUCKETS)
    )
    assert quantiles(rows, ["service"], {"p50": 0.5}).is_empty()


def test_a_service_is_judged_by_the_spans_through_which_work_enters_it():
    picture = frames(
        [
            window(0, "gateway", "POST /chat", "Server", 100, 10, 200.0, "1.0"),
            window(5, "gateway", "POST /chat", "Server", 100, 0, 200.0, "1.1"),
            window(5, "gateway", "POST", "Client", 400, 0, 5.0),
            window(5, "gateway", "http.server.request.duration", "Metric", 1000, 0, 1.0),
            window(5, "cron", "tick", "Internal", 6, 0, 1.0),
        ],
        selfs=[{"window_start_ns": T0, "service": "gateway", "instance": "g-1", "host": "h1"}],
    )
    cron, gateway = summaries.services(picture.windows, picture.selfs, T0, T0 + 6 * WINDOW_NS)
    assert gateway["requests"] == 200
    assert gateway["requests_per_s"] == pytest.approx(200 / 60, rel=1e-3)
    assert gateway["error_ratio"] == 0.05
    assert gateway["latency_p99_ms"] == pytest.approx(200, rel=0.03)
    assert gateway["versions"] == ["1", "1.0", "1.1"]
    assert gateway["instances"] == ["g-1"]
    assert [o["operation"] for o in gateway["operations"]] == ["POST", "POST /chat"]
    assert cron["requests"] == 6
    assert summaries.services(frames().windows, frames().selfs, T0, T0 + WINDOW_NS) == []


def test_a_rate_counts_from_where_data_begins():
    picture = frames([window(350, "s", "o", "Server", 100, 0, 10.0)])
    (service,) = summaries.services(picture.windows, picture.selfs, T0, T0 + 360 * WINDOW_NS)
    assert service["requests_per_s"] == 1.0


def test_series_have_a_step_for_silence_too():
    picture = frames([window(0, "s", "o", "Server", 10, 1, 10.0), window(3, "s", "o", "Server", 20, 0, 80.0)])
    body = summaries.series(picture.windows, "s", "", T0, T0 + 4 * WINDOW_NS)
    assert [w["requests_per_s"] for w in body["windows"]] == [1.0, 0.0, 0.0, 2.0]
    assert [w["error_ratio"] for w in body["windows"]] == [0.1, None, None, 0.0]
    assert body["windows"][1]["latency_p99_ms"] is None
    assert body["windows"][3]["latency_p99_ms"] == pytest.approx(80, rel=0.03)
    assert body["windows"][3]["at"] == "2027-01-15T08:00:30.000Z"


def test_longer_steps_add_windows_up():
    picture = frames([window(i, "s", "o", "Server", 10, 0, 10.0) for i in range(12)])
    body = summaries.series(picture.windows, "s", "o", T0, T0 + 12 * WINDOW_NS, 60 * 10**9)
    assert [(w["requests"], w["requests_per_s"]) for w in body["windows"]] == [(60, 1.0), (60, 1.0)]
    assert summaries.series(picture.windows, "other", "", T0, T0 + WINDOW_NS)["windows"] == []


def test_steps_keep_answers_short():
    day = 24 * 3600 * 10**9
    assert summaries.step_length_ns(0, day) == 120 * 10**9
    assert summaries.step_length_ns(0, WINDOW_NS) == WINDOW_NS
    with pytest.raises(BadRecord, match=r"step_s = 10 .* at least 120"):
        summaries.step_length_ns(0, day, 10 * 10**9)


def test_the_graph_names_kinds_health_and_what_an_edge_costs():
    picture = frames(
        [
            window(0, "gateway", "chat", "Server", 100, 0, 300.0),
            window(0, "llm", "generate", "Server", 100, 50, 200.0),
            window(0, "search", "find", "Server", 100, 0, 20.0),
        ],
        edges=[
            edge("gateway", "llm", "direct", 100, 50, client_sum_ms=25_000.0, server_sum_ms=20_000.0),
            edge("search", "qdrant", "database", 200, client_sum_ms=1000.0),
        ],
    )
    graph = summaries.graph(picture, [incident("llm")], T0 + WINDOW_NS, T0)
    nodes = {node["name"]: node for node in graph["nodes"]}
    assert {name: (n["kind"], n["health"]) for name, n in nodes.items()} == {
        "gateway": ("service", "degraded"),
        "llm": ("service", "cause"),
        "qdrant": ("database", "ok"),
        "search": ("service", "ok"),
    }
    assert nodes["llm"]["incident_ids"] == ["i1"]
    assert (nodes["qdrant"]["requests"], nodes["qdrant"]["requests_per_s"]) == (200, 20.0)
    direct, database = graph["edges"]
    assert (direct["client_mean_ms"], direct["server_mean_ms"], direct["error_ratio"]) == (250.0, 200.0, 0.5)
    assert (database["client_mean_ms"], database["server_mean_ms"]) == (5.0, None)


@pytest.mark.parametrize(
    ("past", "health"),
    [
        (incident("llm", resolved_ns=T0 + WINDOW_NS), "ok"),
        (incident("llm", onset_ns=T0 + 2 * WINDOW_NS), "ok"),
        (incident("llm", state=State.PENDING), "ok"),
        (incident("llm", state=State.RESOLVED, resolved_ns=T0 + 2 * WINDOW_NS), "cause"),
    ],
)
def test_the_graph_of_the_past_shows_the_incidents_of_then(past, health):
    picture = frames([window(0, "llm", "generate", "Server", 100, 0, 200.0)])
    (node,) = summaries.graph(picture, [past], T0 + WINDOW_NS, T0)["nodes"][-1:]
    assert node["health"] == health


def gauge(at, metric, value, hw_id="GPU-1", labels="hw.model=H100", **more):
    row = {"window_start_ns": T0 + at * WINDOW_NS, "service": "llm", "host": "node-1", "hw_id": hw_id}
    values = {"samples": 1, "value_avg": value, "value_min": value, "value_max": value, "kind": "gauge"}
    return row | {"metric": metric, "labels": labels, "unit": "1"} | values | more


def test_metric_series_weigh_by_samples():
    picture = frames(
        gauges=[
            gauge(0, "queue", 1.0, samples=3, value_min=0.5),
            gauge(1, "queue", 5.0, value_max=9.0),
            gauge(0, "queue", 7.0, hw_id="GPU-2"),
        ]
    )
    body = summaries.metric(picture.gauges, "queue", "llm", "hw.model", T0, T0 + 2 * WINDOW_NS, 20 * 10**9)
    first, second = body["series"]
    assert (first["points"][0]["value"], first["points"][0]["min"], first["points"][0]["max"]) == (2.0, 0.5, 9.0)
    assert second["hw_id"] == "GPU-2"
    assert summaries.metric(picture.gauges, "queue", "llm", "A100", T0, T0 + 2 * WINDOW_NS)["series"] == []


def test_gpus_show_the_newest_reading_whatever_its_name():
    rows = [
        gauge(0, "hw.gpu.utilization", 0.2),
        gauge(1, "hw.gpu.utilization", 0.9),
        gauge(1, "hw.gpu.utilization", 0.01, labels="hw.gpu.task=encoder"),
        gauge(1, "hw.gpu.memory.usage", 60e9),
        gauge(1, "hw.gpu.memory.limit", 80e9),
        gauge(1, "DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 40.0, value_max=65.0),
        gauge(1, "DCGM_FI_DEV_SM_CLOCK", 600.0),
        gauge(1, "DCGM_FI_DEV_GPU_UTIL", 50.0, hw_id="GPU-0"),
        gauge(1, "DCGM_FI_DEV_FB_USED", 1024.0, hw_id="GPU-0"),
        gauge(1, "DCGM_FI_DEV_FB_FREE", 3072.0, hw_id="GPU-0"),
        gauge(1, "queue", 3.0, hw_id=""),
    ]
    dcgm, otel = gpus(frames(gauges=rows).gauges)
    assert (otel["utilization_ratio"], otel["memory_utilization_ratio"]) == (0.9, 0.75)
    assert (otel["throttled"], otel["throttle_reasons"], otel["sm_clock_mhz"]) == (True, ["hw_thermal"], 600.0)
    assert otel["model"] == "H100"
    assert (dcgm["utilization_ratio"], dcgm["memory_utilization_ratio"], dcgm["throttled"]) == (0.5, 0.25, None)
    assert gpus(frames().gauges) == []
