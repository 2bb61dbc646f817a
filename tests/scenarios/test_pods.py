"""What kubelet, cAdvisor and kube-state-metrics say of pods, as the cause of what gateways feel."""

from __future__ import annotations

import time

import numpy as np
import pytest

from observe import pipeline
from observe.settings import load
from observe.store.asked import sql_of
from observe.types import WINDOW_NS, CauseKind
from tests.fixtures.records import CLIENT, SERVER, Span, batch, metrics, request
from tests.scenarios.test_gpus_and_inference import diagnosed, gauge

MINUTE_S = 60


def pod(metric, before, after, instance="llm-0", host="node-7"):
    return gauge(metric, before, after, hw_id="", service="", host=host, instance=instance)


THROTTLED = [
    pod("container_cpu_cfs_throttled_periods_total", 0.1, 7), pod("container_cpu_cfs_periods_total", 10, 10),
]  # fmt: skip
CASES = {
    "throttled": (THROTTLED, "llm-0 on node-7: processor held back in 70% of the periods, 1% before"),
    "cpu": ([pod("k8s.pod.cpu_limit_utilization", 0.4, 0.99)], "processor rose from 40% to 99% of its limit"),
    "restarts": ([pod("k8s.container.restarts", 2, 3)], "started again since the onset (2 → 3 restarts)"),
    "oom": ([pod("container_oom_events_total", 0, 0.1)], "killed for want of memory"),
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_pod_in_trouble_is_where_its_service_suffers(name):
    gauges, said = CASES[name]
    cause, _ = diagnosed(*gauges)
    assert (cause.kind, cause.service, cause.resource) == (CauseKind.INSTANCE, "llm", "llm-0")
    (sentence,) = [e for e in cause.evidence if said in e.text]
    assert "of=metric" in sentence.query


def test_memory_at_its_limit_supports_and_does_not_accuse():
    cause, _ = diagnosed(pod("k8s.pod.memory_limit_utilization", 0.5, 0.99))
    assert (cause.kind, cause.resource) == (CauseKind.SERVICE, "")
    assert any("memory rose from 50% to 99% of its limit" in e.text for e in cause.evidence)


@pytest.mark.parametrize(
    "harmless",
    [
        [pod("k8s.container.restarts", 3, 3)],
        [pod("k8s.container.restarts", 2, 3, instance="cart-0", host="gpu-1")],
        [pod("k8s.pod.cpu_limit_utilization", 0.97, 0.99)],
        [pod("container_cpu_cfs_throttled_periods_total", 6, 7), pod("container_cpu_cfs_periods_total", 10, 10)],
    ],
    ids=["restarted long ago", "another pod of the host", "always at its limit", "always held back"],
)
def test_what_was_so_before_or_is_another_pods_is_no_cause(harmless):
    cause, _ = diagnosed(*harmless)
    assert (cause.kind, cause.resource) == (CauseKind.SERVICE, "")
    assert not any(e.kind == "resource" for e in cause.evidence)


# ── real OTLP ───────────────────────────────────────────────────────────────────────────────────────────────────────
NODE = {"k8s.node.name": "node-7"}
PODS = ("cart-7d9f-aaaaa", "cart-7d9f-bbbbb")
BEFORE_S, AFTER_S, RATE = 4 * MINUTE_S, 2.5 * MINUTE_S, 4.0


def spans_of(rng, sick):
    """A gateway asks one of the cart's pods; the second one works eight times slower once it is held back."""
    for at_s in np.arange(0.0, BEFORE_S + AFTER_S, 1.0 / RATE):
        which = int(rng.random() < 0.5)
        slow = 8.0 if sick and which and at_s >= BEFORE_S else 1.0
        took = 30.0 * slow * rng.lognormal(0, 0.3)
        door = Span("gateway", "GET /cart", at_s * 1e3, took + 8)
        call = Span("gateway", "GET", at_s * 1e3 + 2, took + 4, door, CLIENT)
        resource = {"k8s.pod.name": PODS[which], **NODE}
        yield from (door, call, Span("cart", "GET /items", at_s * 1e3 + 4, took, call, SERVER, resource=resource))


def kubelet(start_ns, sick):
    """Use by the kubelet receiver, with a resource for each pod; counters by cAdvisor, with the pod as an attribute."""
    requests = []
    for which, pod_name in enumerate(PODS):
        message, told = metrics("", {"k8s.pod.name": pod_name, **NODE})
        use = told.add(name="k8s.pod.cpu_limit_utilization", unit="1")
        counters = {}
        for name in ("container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_periods_total"):
            counters[name] = told.add(name=name).sum
            counters[name].is_monotonic, counters[name].aggregation_temporality = True, 2
        held = 0
        for at_s in range(0, int(BEFORE_S + AFTER_S), 10):
            now = sick and which and at_s >= BEFORE_S
            held += 60 if now else 0
            at_ns = start_ns + at_s * 10**9
            use.gauge.data_points.add(time_unix_nano=at_ns, as_double=1.0 if now else 0.4)
            for sums, value in zip(counters.values(), (held, at_s * 10), strict=True):
                point = sums.data_points.add(time_unix_nano=at_ns, start_time_unix_nano=start_ns, as_int=value)
                point.attributes.add(key="pod").value.string_value = pod_name
        requests.append(message.SerializeToString())
    return requests


@pytest.fixture(scope="module")
def store(opened_store):
    with opened_store("chdb") as opened:
        yield opened


def test_a_throttled_pod_is_named_from_what_kubelet_says_of_it(store):
    start_ns = (time.time_ns() - 3600 * 10**9) // WINDOW_NS * WINDOW_NS
    spans = list(spans_of(np.random.default_rng(5), sick=True))
    store.insert(batch("otlp_spans", 0, 0, request(spans, start_ns)), len(spans))
    for number, message in enumerate(kubelet(start_ns, sick=True)):
        store.insert(batch("otlp_metrics", 0, number, message), 200)
    settings = load(environ={})
    onset_ns, end_ns = start_ns + int(BEFORE_S * 1e9), start_ns + int((BEFORE_S + AFTER_S) * 1e9)
    (incident,) = pipeline.replay(
        lambda from_ns, to_ns: pipeline.picture(store, from_ns, to_ns, settings), onset_ns, end_ns, settings
    )
    cause = incident.causes[0]
    assert (cause.kind, cause.service, cause.resource) == (CauseKind.INSTANCE, "cart", PODS[1])
    said = {e.text.partition(": ")[2]: e for e in cause.evidence if e.text.startswith(f"{PODS[1]} on node-7: ")}
    (held,) = [e for text, e in said.items() if text.startswith("processor held back in 60% of the periods, 0% before")]
    (row,) = store.query(sql_of(held.query)).to_dicts()
    assert {name: row[name] for name in dict(held.numbers)} == pytest.approx(dict(held.numbers))
