"""Instances, releases, hosts and devices are told apart on small hand-made tables."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from observe.diagnose.contrast import contrast, rows_of, sick_hosts
from observe.diagnose.releases import fresh, releases
from observe.diagnose.resources import findings
from observe.diagnose.series import step
from tests.unit.diagnose_parts import ONSET, WHEN, at, gauge_rows, self_rows


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
