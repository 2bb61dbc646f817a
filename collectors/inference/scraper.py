"""Scrapes the targets of `collect.inference.targets`. Names of metrics stay as the server gives them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from prometheus_client import Metric

from collectors.loop import run_every
from collectors.metrics import Attributes, Instrument, MetricsRequest, Point, ResourceMetrics, send
from collectors.prometheus import convert
from collectors.scrape import Endpoint
from observe.interfaces import Producer
from observe.settings import InferenceCollectorSettings, ScrapeTarget

SCOPE: Final = "observe.collectors.inference"
UP: Final = Instrument("up", "1", description="1 where the last scrape worked")
SCRAPE_SECONDS: Final = Instrument("scrape_duration_seconds", "s")
UNKNOWN_SERVICE: Final = "unknown_service"
PREFIXES: Final[Mapping[str, str]] = {
    "vllm:": "vllm",
    "kserve_vllm:": "vllm",
    "ray_vllm": "vllm",
    "sglang:": "sglang",
    "sglang_": "sglang",
    "tgi_": "tgi",
    "nv_inference_": "triton",
    "nv_trt_llm_": "triton",
    "ray_serve_": "ray-serve",
}
MAX_THREADS: Final = 8


def run_inference(producer: Producer, settings: InferenceCollectorSettings, stop: threading.Event) -> None:
    """Scrapes until `stop` is set; returns at once where there are no targets."""
    targets = [Target(target, settings.interval_s) for target in settings.targets]
    if not targets:
        return
    with ThreadPoolExecutor(min(MAX_THREADS, len(targets)), thread_name_prefix="scrape") as threads:

        def scrape_all(now_ns: int) -> None:
            request = MetricsRequest(SCOPE)
            for target, families in zip(targets, threads.map(Target.scrape, targets), strict=True):
                target.write(families, request, now_ns)
            send(producer, request, timeout_s=settings.interval_s)

        try:
            run_every(settings.interval_s, stop, scrape_all, "inference")
        finally:
            for target in targets:
                target.close()


class Target:
    """One server. Its service is what settings say, else what its metrics look like."""

    def __init__(self, target: ScrapeTarget, interval_s: float) -> None:
        self._endpoint = Endpoint(target.url, interval_s)
        self._service = target.service
        self._instance = target.instance or self._endpoint.instance
        self._seconds = 0.0

    def scrape(self) -> list[Metric] | None:
        began = time.monotonic()
        families = self._endpoint.scrape()
        self._seconds = time.monotonic() - began
        return families

    def write(self, families: list[Metric] | None, request: MetricsRequest, now_ns: int) -> None:
        """Adds what was scraped, and `up`, also where nothing was."""
        if families and not self._service:
            self._service = recognise(family.name for family in families)
        resource = request.resource(self._attributes())
        resource.number(UP, Point({}, now_ns), int(families is not None))
        if families is None:
            return
        resource.number(SCRAPE_SECONDS, Point({}, now_ns), self._seconds)

        def place(labels: Mapping[str, str]) -> tuple[ResourceMetrics, Attributes]:
            return resource, labels

        convert(families, place, self._endpoint.starts, now_ns)

    def close(self) -> None:
        self._endpoint.close()

    def _attributes(self) -> Attributes:
        address = self._endpoint.address
        return {
            "service.name": self._service or UNKNOWN_SERVICE,
            "service.instance.id": self._instance,
            "server.address": address.hostname or "",
            "server.port": str(address.port or ""),
            "url.scheme": address.scheme,
        }


def recognise(names: Iterable[str]) -> str:
    """The kind of server that exposes such metrics, "" where it is none that we know.

    >>> recognise(["python_info", "vllm:num_requests_running"])
    'vllm'
    """
    for name in names:
        for prefix, service in PREFIXES.items():
            if name.startswith(prefix):
                return service
    return ""
