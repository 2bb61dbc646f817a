"""Metric points as GPU nodes, inference engines and web services send them, 8 to 12 attributes each.

One request is one export of one pod or node. `mixed` is a cluster: 40 nodes of 8 GPUs (DCGM's names), 160 vLLM pods and
40 services, of whose points 54 % are gauges, 30 % sums and 16 % histograms. Any other kind is the vLLM pods with all
their series of that kind.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

KINDS = ("mixed", "gauge", "sum", "histogram", "exponential_histogram", "summary")
SERIES = 40
START_BEFORE_NS = 600 * 10**9
STEP_NS = 10 * 10**9
BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0)
NODES, PODS, SERVICES, GPUS = 40, 160, 40, 8
Attributes = dict[str, str]


def exports(kind: str, *, live: bool = False) -> Iterator[tuple[bytes, int]]:
    """Requests without end, each with its number of points: cumulative values that grow, ten seconds apart from ten
    minutes ago on, or `live` as old as the call for them."""
    chance = random.Random(7)
    requests = _cluster(chance) if kind == "mixed" else [_pod(n, chance, [(kind, SERIES)]) for n in range(PODS)]
    begin_ns = time.time_ns() - START_BEFORE_NS
    lists = [(request, list(_points(request))) for request in requests]
    for turn in range(10**9):
        for request, points in lists:
            at_ns = time.time_ns() if live else begin_ns + turn * STEP_NS % START_BEFORE_NS
            for point in points:
                _grow(point, at_ns, chance)
            yield request.SerializeToString(), len(points)


def _cluster(chance: random.Random) -> list[ExportMetricsServiceRequest]:
    requests = [_node(n) for n in range(NODES)]
    requests += [_pod(n, chance, [("gauge", 12), ("sum", 16), ("histogram", 12)]) for n in range(PODS)]
    requests += [_service(n) for n in range(SERVICES)]
    chance.shuffle(requests)
    return requests


def _node(number: int) -> ExportMetricsServiceRequest:
    """dcgm-exporter through a Collector's Prometheus receiver: labels of GPU and pod on each point."""
    request, metrics = _request("dcgm-exporter", f"10.0.{number}.7:9400", {"server.address": f"10.0.{number}.7"})
    for place in range(25):
        points = _add(metrics, "gauge" if place < 20 else "sum", f"DCGM_FI_DEV_FIELD_{place}", "")
        for gpu in range(GPUS):
            _label(points.add(), _gpu(number, gpu))
    return request


def _gpu(node: int, gpu: int) -> Attributes:
    identity = random.Random(node * GPUS + gpu).getrandbits(64)
    return {
        "gpu": str(gpu),
        "UUID": f"GPU-{identity:016x}-4f1a-8c77",
        "pci_bus_id": f"00000000:{gpu + 17:02X}:00.0",
        "device": f"nvidia{gpu}",
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": f"gpu-node-{node:03d}",
        "DCGM_FI_DRIVER_VERSION": "570.86.15",
        "container": "vllm",
        "namespace": "inference",
        "pod": f"llama-70b-{identity % 9973:05d}",
    }


def _pod(number: int, chance: random.Random, series: list[tuple[str, int]]) -> ExportMetricsServiceRequest:
    name = f"llama-70b-{number:05d}"
    resource = {"k8s.pod.name": name, "k8s.namespace.name": "inference", "k8s.node.name": f"gpu-node-{number // 4:03d}"}
    request, metrics = _request("vllm", name, {**resource, "service.version": "0.11.2", "k8s.cluster.name": "eu-1"})
    labels = {
        "model_name": "meta-llama/Llama-3.3-70B-Instruct",
        "engine": str(number % 2),
        "pod": name,
        "namespace": "inference",
        "container": "vllm",
        "node": f"gpu-node-{number // 4:03d}",
        "endpoint": "metrics",
    }
    for kind, count in series:
        for place in range(count):
            points = _add(metrics, kind, f"vllm:{kind}_{place}", "s" if "histogram" in kind else "")
            _label(points.add(), {**labels, "finished_reason": chance.choice(("stop", "length", "abort"))})
    return request


def _service(number: int) -> ExportMetricsServiceRequest:
    """The OpenTelemetry SDK: durations by route with an exemplar each, and the runtime's gauges and counters."""
    resource = {"k8s.pod.name": f"checkout-{number}", "service.namespace": "shop", "service.version": "3.2.1"}
    request, metrics = _request(f"checkout-{number % 8}", f"i-{number}", resource)
    for kind in ("gauge", "sum"):
        for place in range(20):
            _label(_add(metrics, kind, f"process.runtime.{kind}.{place}", "By").add(), {"type": "heap", "pool": "eden"})
    points = _add(metrics, "histogram", "http.server.request.duration", "s")
    for route in range(20):
        point = points.add()
        exemplar = point.exemplars.add(time_unix_nano=time.time_ns(), as_double=0.3)
        exemplar.trace_id, exemplar.span_id = random.randbytes(16), random.randbytes(8)
        _label(point, _route(route))
    return request


def _route(number: int) -> Attributes:
    return {
        "http.request.method": "POST" if number % 3 else "GET",
        "http.route": f"/api/v2/orders/{{id}}/step{number}",
        "http.response.status_code": "200",
        "url.scheme": "https",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "server.address": "checkout.shop.svc",
        "server.port": "8443",
    }


def _request(service: str, instance: str, resource: Attributes) -> tuple[ExportMetricsServiceRequest, Any]:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for key, value in {"service.name": service, "service.instance.id": instance, **resource}.items():
        group.resource.attributes.add(key=key).value.string_value = value
    scope = group.scope_metrics.add()
    scope.scope.name, scope.scope.version = "io.opentelemetry.contrib.prometheus", "0.140.0"
    return request, scope.metrics


def _add(metrics: Any, kind: str, name: str, unit: str) -> Any:
    """A metric of a kind; its list of points."""
    metric = metrics.add(name=name, description=f"{name}: what it says, in one sentence of usual length.", unit=unit)
    data = getattr(metric, kind)
    if kind in ("sum", "histogram", "exponential_histogram"):
        data.aggregation_temporality = 2
    if kind == "sum":
        data.is_monotonic = True
    return data.data_points


def _label(point: Any, attributes: Attributes) -> None:
    for key, value in attributes.items():
        point.attributes.add(key=key).value.string_value = value
    point.start_time_unix_nano = time.time_ns() - 2 * START_BEFORE_NS
    match type(point).__name__:
        case "HistogramDataPoint":
            point.explicit_bounds.extend(BOUNDS)
            point.bucket_counts.extend([0] * (len(BOUNDS) + 1))
        case "ExponentialHistogramDataPoint":
            point.scale, point.positive.offset = 4, -20
            point.positive.bucket_counts.extend([0] * 40)
        case "SummaryDataPoint":
            for quantile in (0.5, 0.9, 0.99):
                point.quantile_values.add(quantile=quantile, value=0.1)


def _points(request: ExportMetricsServiceRequest) -> Iterator[Any]:
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        yield from getattr(metric, metric.WhichOneof("data")).data_points


def _grow(point: Any, at_ns: int, chance: random.Random) -> None:
    point.time_unix_nano = at_ns
    match type(point).__name__:
        case "NumberDataPoint":
            point.as_double += chance.random()
            return
        case "HistogramDataPoint":
            point.bucket_counts[chance.randrange(15)] += 3
        case "ExponentialHistogramDataPoint":
            point.positive.bucket_counts[chance.randrange(40)] += 3
    point.count += 3
    point.sum += 0.7 * chance.random()
