"""Systems that send metrics and no spans: noticed, explained and told by the same code, with a graph or without one."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from observe.diagnose.metrics_only import known_graph, symptoms
from observe.frames import GAUGE_WINDOWS, Frames, empty
from observe.settings import load
from observe.types import WINDOW_NS, CauseKind, Incident, Shift
from observe.verdict import look
from tests.fixtures.records import batch, metrics

T0 = 1_700_000_000 * 10**9 // WINDOW_NS * WINDOW_NS
WINDOWS, FAULT = 126, 110
CALLS = {"gateway": ["cart", "search"], "cart": ["payment"], "search": [], "payment": []}
BASE_MS = {"payment": 40.0, "cart": 60.0, "search": 30.0, "gateway": 120.0}
GRAPH = ("gateway -> cart", "gateway -> search", "cart -> payment")
SECOND = 10**9


def values(seed: int, *, faulty: bool = True) -> dict[tuple[str, str], np.ndarray]:
    """(service, metric) → one value a window. From FAULT on payment's processor is busy and it takes 160 ms longer,
    which cart and gateway wait for."""
    rng = np.random.default_rng(seed)
    after = (np.arange(WINDOWS) >= FAULT) & faulty
    found = {}
    for service, base in BASE_MS.items():
        slower = 160.0 if service in ("payment", "cart", "gateway") else 0.0
        found[service, "request_latency_ms"] = base * rng.lognormal(0, 0.05, WINDOWS) + slower * after
        found[service, "requests_per_s"] = 50 * rng.lognormal(0, 0.05, WINDOWS)
        found[service, "cpu_usage"] = 0.3 * rng.lognormal(0, 0.08, WINDOWS) + 0.55 * after * (service == "payment")
        found[service, "memory_bytes"] = 4e8 * rng.lognormal(0, 0.01, WINDOWS)
    return found


def frames(seed: int = 3, *, every: int = 1, more: pl.DataFrame | None = None, faulty: bool = True) -> Frames:
    rows = [
        {
            "window_start_ns": T0 + w * WINDOW_NS, "service": service, "instance": "", "host": "", "hw_id": "",
            "metric": metric, "unit": "", "labels": "", "kind": "gauge", "samples": 1,
            "value_avg": series[w], "value_min": series[w], "value_max": series[w],
        }
        for (service, metric), series in values(seed, faulty=faulty).items()
        for w in range(0, WINDOWS, every)
    ]  # fmt: skip
    none = empty()
    gauges = pl.DataFrame(rows, schema=GAUGE_WINDOWS)
    gauges = gauges if more is None else pl.concat([gauges, more])
    return Frames(none.windows, none.selfs, none.edges, gauges.sort("window_start_ns", "service", maintain_order=True))


def service_graph() -> pl.DataFrame:
    """What the Collector's service graph connector says of the same system."""
    rows = [
        {
            "window_start_ns": T0 + w * WINDOW_NS, "service": "otelcol", "instance": "", "host": "", "hw_id": "",
            "metric": "traces_service_graph_request_total", "unit": "", "labels": f"client={caller},server={callee}",
            "kind": "counter", "samples": 1, "value_avg": 50.0, "value_min": 50.0, "value_max": 50.0,
        }
        for caller, callees in CALLS.items()
        for callee in callees
        for w in range(WINDOWS)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=GAUGE_WINDOWS)


def looked(given: Frames, calls: tuple[str, ...] = (), start_ns: int = T0) -> list[Incident]:
    """What is known after a look at each of the windows since the fault."""
    settings = load(environ={}, options={"diagnose.calls": list(calls)})
    known: dict[str, Incident] = {}
    for window in range(FAULT + 2, WINDOWS, 2):
        now_ns = start_ns + window * WINDOW_NS + 12 * SECOND
        known |= {i.id: i for i in look(given.between(0, now_ns), list(known.values()), now_ns, settings)}
    return [i for i in known.values() if i.fired_ns is not None]


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("source", ["settings", "metrics"])
def test_the_guilty_service_is_named_with_a_path_and_its_numbers(seed, source):
    given = frames(seed, more=service_graph() if source == "metrics" else None)
    (incident,) = looked(given, GRAPH if source == "settings" else ())
    cause = incident.causes[0]
    assert (cause.kind, cause.service) == (CauseKind.SERVICE, "payment")
    assert cause.path in (("gateway", "cart", "payment"), ("cart", "payment"))
    assert any("cpu_usage of payment rose from 0.3" in e.text for e in cause.evidence)
    asked = [e for e in cause.evidence if e.query]
    assert asked[0].query.startswith("/api/v1/compare?of=metric&service=payment&metric=")
    assert "gateway" in incident.impact.services
    assert {"cart", "payment"} <= {s.service for s in incident.symptoms} <= {"gateway", "cart", "payment"}


def test_without_a_graph_the_same_service_is_named():
    (incident,) = looked(frames())
    assert incident.causes[0].service == "payment"


def test_metrics_that_come_once_a_minute_are_enough():
    assert [i.causes[0].service for i in looked(frames(every=6), GRAPH)] == ["payment"]


@pytest.mark.parametrize("seed", [3, 4])
def test_nothing_is_told_where_nothing_is_wrong(seed):
    assert looked(frames(seed, faulty=False), GRAPH) == []


def test_load_and_use_alone_are_no_symptoms():
    def shift(measure, before, after, p=1e-9):
        return Shift("a", "", "Metric", measure, before, after, "", p, 30, T0)

    told = symptoms([
        shift("request_latency_ms", 10, 40), shift("request_latency_ms", 10, 11), shift("cpu_usage", 0.1, 0.9),
        shift("requests_per_s", 10, 90), shift("error_rate", 0.0, 0.2), shift("availability", 1.0, 0.7),
        shift("availability", 0.7, 1.0), shift("http_errors", 1, 9, p=0.01),
    ])  # fmt: skip
    assert [(s.measure, s.after) for s in told] == [
        ("request_latency_ms", 40), ("error_rate", 0.2), ("availability", 0.7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "machinery",
    ["system.disk.io_time", "node_disk_io_time_seconds_total", "process.runtime.cpython.gc_time", "hw.errors",
     "scrape_duration_seconds", "DCGM_FI_DEV_XID_ERRORS", "otelcol_exporter_send_failed_spans"],
)  # fmt: skip
def test_what_machines_say_of_themselves_is_no_symptom(machinery):
    assert symptoms([Shift("a", "", "Metric", machinery, 1.0, 9.0, "", 1e-12, 30, T0)]) == []


def test_calls_come_from_settings_and_from_metrics():
    settings = load(environ={}, options={"diagnose.calls": ["gateway -> cart", "a->b"]}).diagnose
    graph = known_graph(frames(more=service_graph()), settings)
    assert set(graph.edges) == {("gateway", "cart"), ("gateway", "search"), ("cart", "payment"), ("a", "b")}


def test_metrics_that_went_through_the_store_are_diagnosed_alike(opened_store):
    base_ns = (time.time_ns() - 3000 * SECOND) // WINDOW_NS * WINDOW_NS
    by_service: dict[str, list[tuple[str, np.ndarray]]] = {}
    for (service, metric), series in values(3).items():
        by_service.setdefault(service, []).append((metric, series))
    with opened_store("chdb") as store:
        for number, (service, told) in enumerate(by_service.items()):
            message, found = metrics(service)
            for metric, series in told:
                points = found.add(name=metric).gauge.data_points
                for w, value in enumerate(series.tolist()):
                    points.add(time_unix_nano=base_ns + w * WINDOW_NS + SECOND, as_double=value)
            store.insert(batch("otlp_metrics", 0, number, message.SerializeToString()), WINDOWS * len(told))
        (incident,) = looked(store.frames(base_ns, base_ns + WINDOWS * WINDOW_NS), GRAPH, base_ns)
    assert incident.causes[0].service == "payment"
