"""The parts of the diagnosis on small hand-made tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose import diagnose
from observe.diagnose.addresses import resolved
from observe.diagnose.attribution import latency, reach
from observe.diagnose.contrast import contrast, rows_of, sick_hosts
from observe.diagnose.graph import _standardized, picture, service_graph
from observe.diagnose.levels import Periods, levels, periods
from observe.diagnose.releases import fresh, releases
from observe.diagnose.resources import findings
from observe.diagnose.series import step
from observe.frames import EDGE_WINDOWS, GAUGE_WINDOWS, SELF_WINDOWS, SERVICE_WINDOWS, Frames
from observe.settings import DiagnoseSettings
from observe.types import WINDOW_NS, CauseKind, Shift

T0 = 1_700_000_000 * 10**9
ONSET = T0 + 30 * WINDOW_NS
NOW = T0 + 40 * WINDOW_NS
WHEN = Periods(T0, ONSET - 2 * WINDOW_NS, ONSET, NOW)


def at(window: int) -> int:
    return T0 + window * WINDOW_NS


def self_rows(service, before_ms, after_ms, *, windows=40, requests=100, kind="Server", total=(None, None), **columns):
    """One row a window; self time per request goes from `before_ms` to `after_ms` at window 30."""
    rows = []
    for w in range(windows):
        own = (after_ms if w >= 30 else before_ms) * (1 + 0.01 * ((w * 7) % 5 - 2))
        whole = total[w >= 30] if total[0] is not None else own
        row = {name: "" for name, dtype in SELF_WINDOWS.items() if dtype == pl.String}
        row |= {
            "window_start_ns": at(w),
            "service": service,
            "operation": "/x",
            "kind": kind,
            "requests": requests,
            "errors": 0,
            "origin_errors": 0,
            "duration_sum_ms": requests * (whole + (own - (after_ms if w >= 30 else before_ms))),
            "self_sum_ms": requests * own,
            "self_buckets": [{"bucket": 40, "count": requests}],
        }
        rows.append(row | columns)
    return pl.DataFrame(rows, schema=SELF_WINDOWS)


def edge_rows(caller, callee, client, server, *, connection="direct", calls=100, windows=40):
    """`client` and `server` are (before, after) per call in ms; server None for a virtual node."""
    rows = []
    for w in range(windows):
        after = w >= 30
        rows.append(
            {
                "window_start_ns": at(w),
                "caller": caller,
                "caller_operation": "GET",
                "callee": callee,
                "callee_operation": "/x",
                "connection": connection,
                "calls": calls,
                "errors": 0,
                "client_sum_ms": calls * client[after] * (1 + 0.002 * (w % 3 - 1)),
                "server_sum_ms": None if server is None else float(calls * server[after]),
                "latency_buckets": [{"bucket": 40, "count": calls}],
            }
        )
    return pl.DataFrame(rows, schema=EDGE_WINDOWS)


def frames(selfs, edges=(), gauges=None):
    return Frames(
        pl.DataFrame(schema=SERVICE_WINDOWS),
        pl.concat(selfs).sort("window_start_ns", maintain_order=True),
        pl.concat(edges).sort("window_start_ns", maintain_order=True) if edges else pl.DataFrame(schema=EDGE_WINDOWS),
        pl.DataFrame(schema=GAUGE_WINDOWS) if gauges is None else gauges,
    )


def gauge_rows(metric, before, after, *, hw_id="GPU-1", host="gpu-host", labels=""):
    rows = []
    for w in range(40):
        value = float(after if w >= 30 else before)
        row = {name: "" for name, dtype in GAUGE_WINDOWS.items() if dtype == pl.String}
        row |= {"window_start_ns": at(w), "host": host, "hw_id": hw_id, "metric": metric, "labels": labels}
        rows.append(row | {"samples": 1, "value_avg": value, "value_min": value, "value_max": value})
    return pl.DataFrame(rows, schema=GAUGE_WINDOWS)


# ── periods and levels ──────────────────────────────────────────────────────────────────────────────────────────────


def test_before_ends_ahead_of_the_onset_and_after_leaves_out_what_is_not_settled():
    windows = pl.DataFrame({"window_start_ns": [at(w) for w in range(40)]})
    found = periods(ONSET, NOW, windows)
    assert found == Periods(T0, at(28), at(30), at(39))


def test_nothing_before_the_onset_gives_no_periods():
    windows = pl.DataFrame({"window_start_ns": [at(w) for w in range(30, 40)]})
    assert periods(ONSET, NOW, windows) is None


def test_a_level_is_a_ratio_of_sums_whatever_the_windows_sizes():
    table = pl.DataFrame(
        {"key": "a", "period": [0, 0, 0, 1], "n": [1.0, 3.0, 4.0, 10.0], "total": [10.0, 3.0, 3.0, 50.0]}
    )
    (row,) = levels(table, ["key"], "n", "total").iter_rows(named=True)
    assert (row["mean0"], row["mean1"], row["change"]) == (2.0, 5.0, 3.0)


def test_windows_that_move_together_widen_the_standard_error():
    rng = np.random.default_rng(1)
    calm = [100.0 * (10 + x) for x in rng.normal(0, 0.1, 40)]
    moody = [100.0 * (10 + x) for x in rng.normal(0, 2.0, 40)]
    period = [0] * 20 + [1] * 20
    both = [
        levels(pl.DataFrame({"k": "a", "period": period, "n": 100.0, "total": t}), ["k"], "n", "total")["error"][0]
        for t in (calm, moody)
    ]
    assert both[1] == pytest.approx(2.0 * np.sqrt(2 / 20), rel=0.4)
    assert both[0] < both[1] / 10


# ── attribution ─────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 50)] * 4), min_size=1, max_size=8),
)
def test_speed_and_mix_add_up_to_the_change(rows):
    rate = np.array([[r[0] for r in rows], [r[1] for r in rows]])
    mean = np.array([[r[2] for r in rows], [r[3] for r in rows]])
    speed, mix, _ = _standardized(rate, mean, np.zeros(len(rows)))
    assert (speed + mix).sum() == pytest.approx((rate[1] * mean[1]).sum() - (rate[0] * mean[0]).sum(), abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.floats(1, 100)] * 6))
def test_shares_of_a_chain_add_up_to_the_change(times):
    a0, b0, db0, a1, b1, db1 = times
    low, high = (b0 + db0, b1 + db1), (a0 + b0 + db0 + 1, a1 + b1 + db1 + 1)
    view = picture(
        frames(
            [self_rows("a", a0, a1, total=high), self_rows("b", b0, b1, total=low)],
            [
                edge_rows("a", "b", (low[0] + 1, low[1] + 1), low),
                edge_rows("b", "db", (db0, db1), None, connection="database"),
            ],
        ),
        WHEN,
    )
    (split,) = latency(view, np.array([0]))
    assert split.total == pytest.approx(high[1] - high[0], abs=0.05 * max(high))
    assert split.rest == pytest.approx(0, abs=0.05 * max(high))
    assert split.own[1] == pytest.approx(b1 - b0, abs=0.03 * max(b0, b1))


def test_a_cycle_ends_and_stays_bounded():
    view = picture(
        frames(
            [self_rows("a", 5, 5, total=(20, 20)), self_rows("b", 5, 50, total=(15, 60))],
            [edge_rows("a", "b", (15, 60), (15, 60)), edge_rows("b", "a", (10, 10), (10, 10), calls=100)],
        ),
        WHEN,
    )
    weight = np.ones(len(view.edges.caller))
    total = reach(view, np.array([0, 1]), weight)
    assert np.isfinite(total).all()
    assert total.max() <= 64


def test_a_missing_callee_known_by_its_address_is_the_service():
    selfs = pl.concat([self_rows("a", 5, 5), self_rows("reranker", 5, 5)])
    edges = edge_rows("a", "reranker.prod:8080", (10, 10), None, connection="external")
    view = picture(frames([selfs], [resolved(edges, selfs)]), WHEN)
    assert view.virtual == ()
    assert view.services == ("a", "reranker")


def test_the_graph_knows_virtual_nodes_and_leaves_out_calls_to_oneself():
    graph = service_graph(
        pl.concat(
            [
                edge_rows("a", "b", (10, 10), (9, 9)),
                edge_rows("b", "b", (1, 1), (1, 1)),
                edge_rows("b", "pg", (3, 3), None, connection="database"),
            ]
        )
    )
    assert sorted(graph.edges) == [("a", "b"), ("b", "pg")]
    assert [graph.nodes[n]["virtual"] for n in ("a", "b", "pg")] == [False, False, True]


# ── narrowing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_one_slow_instance_is_named_with_the_others_as_proof():
    selfs = pl.concat([self_rows("s", 10, 50 if i == 1 else 10, instance=f"i{i}") for i in range(3)])
    found = contrast(rows_of(selfs, ["s"], WHEN, "self"), "instance", "self")
    assert found is not None
    assert [v.name for v in found.carriers] == ["i1"]
    assert found.carriers[0].excess == pytest.approx(40, rel=0.05)
    assert {v.name for v in found.others} == {"i0", "i2"}


def test_no_instance_is_named_when_all_are_slow():
    selfs = pl.concat([self_rows("s", 10, 50, instance=f"i{i}") for i in range(3)])
    assert contrast(rows_of(selfs, ["s"], WHEN, "self"), "instance", "self") is None


def test_a_single_instance_cannot_be_told_from_its_service():
    rows = rows_of(self_rows("s", 10, 50, instance="only"), ["s"], WHEN, "self")
    assert contrast(rows, "instance", "self") is None


def bad_releases(rows):
    return releases(rows, "self", fresh(rows, ONSET))


def test_a_release_that_replaced_all_is_compared_with_the_past():
    old = self_rows("s", 10, 10, version="1").filter(pl.col("window_start_ns") < ONSET)
    new = self_rows("s", 10, 40, version="2").filter(pl.col("window_start_ns") >= ONSET)
    found = bad_releases(rows_of(pl.concat([old, new]), ["s"], WHEN, "self"))
    assert [(service, r.name, r.unit) for service, r in found.items()] == [("s", "2", "ms")]
    assert found["s"].excess == pytest.approx(30, rel=0.02)


def test_a_clock_that_falls_under_load_is_a_cause_and_one_that_falls_idle_is_not():
    busy = pl.concat([gauge_rows("DCGM_FI_DEV_SM_CLOCK", 1980, 900), gauge_rows("hw.gpu.utilization", 0.7, 0.95)])
    idle = pl.concat([gauge_rows("DCGM_FI_DEV_SM_CLOCK", 1980, 900), gauge_rows("hw.gpu.utilization", 0.7, 0.05)])
    (found,) = findings(busy, WHEN, "llm", ["i"], ["gpu-host"])
    assert (found.hw_id, found.host) == ("GPU-1", "gpu-host")
    assert found.texts == ("SM clock fell from 1980 to 900 MHz",)
    assert findings(idle, WHEN, "llm", ["i"], ["gpu-host"]) == []


def test_throttle_reasons_are_read_bit_by_bit_and_the_idle_bit_is_none():
    throttled = findings(gauge_rows("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 1, 64 | 4), WHEN, "llm", [], ["gpu-host"])
    assert throttled[0].texts == (
        "clock held back since the onset: software power cap, hardware thermal slowdown (reasons 68)",
    )
    assert findings(gauge_rows("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0, 1), WHEN, "llm", [], ["gpu-host"]) == []


def test_load_alone_makes_no_device_a_cause():
    loaded = pl.concat(
        [
            gauge_rows("hw.power", 300, 600),
            gauge_rows("hw.temperature", 50, 80),
            gauge_rows("vllm:num_requests_waiting", 0, 50),
        ]
    )
    assert findings(loaded, WHEN, "llm", [], ["gpu-host"]) == []


def test_a_full_cache_with_a_queue_is_told():
    full = pl.concat(
        [gauge_rows("vllm:kv_cache_usage_perc", 0.5, 0.99), gauge_rows("vllm:num_requests_waiting", 0, 30)]
    )
    (found,) = findings(full, WHEN, "llm", [], ["gpu-host"])
    assert found.texts[0] == "KV cache rose from 50% to 99%, requests wait for room"


@pytest.mark.parametrize("direction", [1, -1])
def test_a_step_is_found_where_it_is_and_only_upwards(direction):
    values = np.array([1.0, 1.2, 0.9, np.nan, 1.1, 1.0, 3.0, 3.2, 2.9]) * direction
    assert step(values) == (6 if direction > 0 else None)


@pytest.mark.parametrize("rollover", ["complete", "under way"])
def test_a_bad_release_is_named_whether_or_not_the_old_version_still_serves(rollover):
    before, after = pl.col("window_start_ns") < ONSET, pl.col("window_start_ns") >= ONSET
    old = self_rows("s", 10, 12, version="1", instance="s-1")
    new = self_rows("s", 10, 40, version="2", instance="s-2", requests=30).filter(after)
    rows = rows_of(pl.concat([old.filter(before) if rollover == "complete" else old, new]), ["s"], WHEN, "self")
    assert bad_releases(rows)["s"].name == "2"


def test_a_release_that_is_no_worse_than_the_old_version_is_not_accused():
    old = self_rows("s", 10, 40, version="1").filter(pl.col("window_start_ns") < at(36))
    new = self_rows("s", 10, 40, version="2").filter(pl.col("window_start_ns") >= at(36))
    fine = self_rows("t", 10, 10, version="2").filter(pl.col("window_start_ns") >= ONSET)
    older = self_rows("t", 10, 10, version="1").filter(pl.col("window_start_ns") < ONSET)
    rows = rows_of(pl.concat([old, new, older, fine]), ["s", "t"], WHEN, "self")
    assert bad_releases(rows) == {}


def test_the_last_slow_requests_of_the_old_version_speak_for_nobody():
    old = self_rows("s", 20, 20, windows=30, version="1")
    last = self_rows("s", 20, 400, windows=31, requests=2, version="1")[30:]
    new = self_rows("s", 20, 120, version="2")[30:]
    assert bad_releases(rows_of(pl.concat([old, last, new]), ["s"], WHEN, "self"))["s"].name == "2"


def test_a_host_is_not_named_for_services_whose_release_explains_their_trouble():
    def on(host, service, after_ms):
        return self_rows(service, 10, after_ms, host=host, instance=f"{service}-{host}")

    selfs = pl.concat([on("h1", "a", 60), on("h1", "b", 50), on("h2", "c", 10), on("h2", "d", 10)])
    rows = rows_of(selfs, ["a", "b", "c", "d"], WHEN, "self")
    assert sick_hosts(rows) == {"h1": ("a", "b")}
    assert sick_hosts(rows, {"a"}) == {}


# ── a service that fell silent ──────────────────────────────────────────────────────────────────────────────────────


def lost_rows(caller, callee, calls, waited_ms=2.0, connection="external"):
    """Calls since the onset that fail without reaching anybody."""
    rows = edge_rows(caller, callee, (waited_ms, waited_ms), None, connection=connection, calls=calls)
    return rows.filter(pl.col("window_start_ns") >= ONSET).with_columns(
        errors=pl.col("calls"), callee_operation=pl.lit("POST")
    )


def client_rows(service, failed, *, calls=100):
    rows = self_rows(service, 1, 1, kind="Client", operation="POST", requests=calls)
    erring = pl.when(pl.col("window_start_ns") >= ONSET).then(failed).otherwise(0).cast(pl.UInt64)
    return rows.with_columns(errors=erring, origin_errors=erring, error_trace_id=pl.lit("t1"))


def until_onset(rows):
    return rows.filter(pl.col("window_start_ns") < ONSET)


def erring(rows, failed):
    errors = pl.when(pl.col("window_start_ns") >= ONSET).then(failed).otherwise(0).cast(pl.UInt64)
    return rows.with_columns(errors=errors)


def errors_of(service, after):
    return Shift(service, "/x", "Server", "error_ratio", 0.0, after, "1", 1e-9, 500, ONSET)


def gateway_and_callee(callee_rows, edges, failed):
    api = erring(self_rows("api", 5, 5), failed)
    return frames([api, client_rows("api", failed), *callee_rows], edges)


@pytest.mark.parametrize("waited_ms", [2.0, 1000.0])
def test_a_service_that_fell_silent_is_the_cause_of_the_errors_of_its_callers(waited_ms):
    view = gateway_and_callee(
        [until_onset(self_rows("guard", 8, 8))],
        [until_onset(edge_rows("api", "guard", (9, 9), (8, 8))), lost_rows("api", "guard:8080", 100, waited_ms)],
        100,
    )
    (found,) = diagnose([errors_of("api", 1.0)], view, NOW, DiagnoseSettings())
    first = found.causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.SERVICE, "guard", "")
    assert first.score > 0.8
    assert first.path == ("api", "guard")
    assert first.exemplar_trace_ids == ("t1",)
    assert any("without a trace of it in guard" in e.text for e in first.evidence)


def test_a_caller_whose_calls_all_get_lost_while_others_get_through_is_the_cause_itself():
    callees = ["one", "two"]
    selfs = [erring(self_rows("api", 5, 5), 100), client_rows("api", 100), self_rows("web", 5, 5)]
    selfs += [self_rows(c, 8, 8) for c in callees]
    edges = [until_onset(edge_rows("api", c, (9, 9), (8, 8))) for c in callees]
    edges += [edge_rows("web", c, (9, 9), (8, 8)) for c in callees] + [lost_rows("api", c, 100) for c in callees]
    (found,) = diagnose([errors_of("api", 1.0)], frames(selfs, edges), NOW, DiagnoseSettings())
    assert found.causes[0].service == "api"


def test_one_crashed_instance_of_several_is_named_by_the_calls_that_it_lost():
    def instance(i):
        rows = self_rows("guard", 8, 8, instance=f"guard-{i}", requests=33)
        return until_onset(rows) if i == 1 else rows

    calls = edge_rows("api", "guard", (9, 9), (8, 8))
    calls = calls.with_columns(
        calls=pl.when(pl.col("window_start_ns") >= ONSET).then(66).otherwise(99).cast(pl.UInt64)
    ).with_columns(client_sum_ms=9.0 * pl.col("calls"), server_sum_ms=8.0 * pl.col("calls"))
    view = gateway_and_callee([instance(i) for i in range(3)], [calls, lost_rows("api", "guard-1:8080", 33)], 33)
    (found,) = diagnose([errors_of("api", 0.33)], view, NOW, DiagnoseSettings())
    first = found.causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.INSTANCE, "guard", "guard-1")
    assert any("instance guard-1 served" in e.text for e in first.evidence)


def test_fewer_requests_of_a_silent_service_are_its_own_doing():
    view = gateway_and_callee(
        [until_onset(self_rows("guard", 8, 8))],
        [until_onset(edge_rows("api", "guard", (9, 9), (8, 8))), lost_rows("api", "guard", 100)],
        100,
    )
    fewer = Shift("guard", "/x", "Server", "requests_per_s", 10.0, 0.0, "{request}/s", 1e-9, 500, ONSET)
    (found,) = diagnose([fewer], view, NOW, DiagnoseSettings())
    assert (found.causes[0].kind, found.causes[0].service) == (CauseKind.SERVICE, "guard")


# ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def slow(service):
    return Shift(service, "/x", "Server", "latency_p99_ms", 50.0, 400.0, "ms", 1e-9, 200, ONSET)


def shop():
    """web → (api → (cart → stock, and stock itself), and stock itself): stock got slow."""
    selfs = [
        self_rows("web", 5, 5, total=(70, 160)),
        self_rows("api", 5, 5, total=(50, 110)),
        self_rows("cart", 5, 5, total=(15, 45)),
        self_rows("stock", 10, 40),
    ]
    edges = [
        edge_rows("web", "api", (50, 110), (50, 110)),
        edge_rows("web", "stock", (10, 40), (10, 40), calls=300),
        edge_rows("api", "cart", (15, 45), (15, 45)),
        edge_rows("api", "stock", (10, 40), (10, 40)),
        edge_rows("cart", "stock", (10, 40), (10, 40)),
    ]
    return frames(selfs, edges)


@pytest.mark.parametrize(
    ("seen", "top"),
    [(("stock", "cart", "api", "web"), "web"), (("stock", "cart", "api"), "api"), (("stock",), "stock")],
)
def test_a_path_starts_at_the_topmost_symptom(seen, top):
    (found,) = diagnose([slow(s) for s in seen], shop(), NOW, DiagnoseSettings())
    first = found.causes[0]
    assert first.service == "stock"
    assert (first.path[0], first.path[-1]) == (top, "stock")


def test_what_cannot_be_explained_still_shows_where_users_feel_it():
    calm = [self_rows("web", 5, 5, total=(16, 16)), self_rows("stock", 10, 10)]
    view = frames(calm, [edge_rows("web", "stock", (11, 11), (10, 10))])
    late = replace(slow("web"), onset_ns=ONSET + WINDOW_NS)
    (found,) = diagnose([slow("stock"), late], view, NOW, DiagnoseSettings())
    assert (found.causes[0].kind, found.causes[0].path) == (CauseKind.UNKNOWN, ("web", "stock"))


@pytest.mark.parametrize("looked", [33, 35, 40])
@pytest.mark.parametrize("rollover", ["complete", "under way"])
def test_a_bad_release_comes_before_its_host_and_traffic_that_rose(looked, rollover):
    before, after = pl.col("window_start_ns") < ONSET, pl.col("window_start_ns") >= ONSET

    def busier(rows):
        more = pl.when(after).then(1.8).otherwise(1.0)
        counts = [c for c in ("requests", "calls") if c in rows.columns]
        times = [c for c in rows.columns if c.endswith("_sum_ms")]
        return rows.with_columns((pl.col(counts) * more).cast(pl.UInt64), pl.col(times) * more)

    old = self_rows("rank", 10, 12, version="1", host="h1", requests=70)
    new = self_rows("rank", 10, 40, version="2", host="h1", requests=30 if rollover == "under way" else 100)
    selfs = [
        self_rows("web", 5, 5, total=(28, 62), host="h2"),
        self_rows("store", 10, 14, host="h1"),
        old if rollover == "under way" else old.filter(before),
        new.filter(after),
    ]
    edges = [
        edge_rows("web", "rank", (11, 41), (10, 40)),
        edge_rows("web", "store", (11, 15), (10, 14)),
    ]
    view = frames([busier(s) for s in selfs], [busier(e) for e in edges]).between(0, at(looked))
    (found,) = diagnose([slow("web"), slow("rank")], view, at(looked), DiagnoseSettings())
    first = found.causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.VERSION, "rank", "2")
    assert first.path == ("web", "rank")
