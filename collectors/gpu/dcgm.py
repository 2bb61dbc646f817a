"""NVIDIA's DCGM exporter, scraped: its series under their own names, and the `hw.*` metrics that they amount to.

GPUs then look the same however they were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Metric
from prometheus_client.samples import Sample

from collectors.gpu.readings import (
    ENERGY,
    ERRORS,
    GENERAL,
    MEMORY_LIMIT,
    MEMORY_USAGE,
    MEMORY_UTILIZATION,
    POWER,
    TEMPERATURE,
    UTILIZATION,
)
from collectors.metrics import Attributes, Instrument, MetricsRequest, Point, ResourceMetrics
from collectors.prometheus import convert
from collectors.scrape import Endpoint

UP: Final = Instrument("up", "1", description="1 where the last scrape worked")
SENTINELS_FROM: Final = 0x7FFFFFFFFFFFFFF0
"""Older exporters write DCGM's codes for "blank", "not supported" and the like as if they were values."""
MEBIBYTE: Final = 2**20
FRAMEBUFFER: Final = {
    "DCGM_FI_DEV_FB_USED": "used",
    "DCGM_FI_DEV_FB_FREE": "free",
    "DCGM_FI_DEV_FB_RESERVED": "reserved",
}
XID: Final = "DCGM_FI_DEV_XID_ERRORS"


@dataclass(frozen=True, slots=True)
class Equivalent:
    """DCGM's value times `factor` is the value of `instrument`."""

    instrument: Instrument
    factor: float = 1.0
    attributes: Mapping[str, str] = field(default_factory=dict)


EQUIVALENTS: Final[Mapping[str, Equivalent]] = {
    "DCGM_FI_DEV_GPU_UTIL": Equivalent(UTILIZATION, 0.01, GENERAL),
    "DCGM_FI_DEV_ENC_UTIL": Equivalent(UTILIZATION, 0.01, {"hw.gpu.task": "encoder"}),
    "DCGM_FI_DEV_DEC_UTIL": Equivalent(UTILIZATION, 0.01, {"hw.gpu.task": "decoder"}),
    "DCGM_FI_DEV_POWER_USAGE": Equivalent(POWER),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Equivalent(ENERGY, 0.001),
    "DCGM_FI_DEV_GPU_TEMP": Equivalent(TEMPERATURE, 1.0, {"hw.sensor_location": "gpu"}),
    "DCGM_FI_DEV_MEMORY_TEMP": Equivalent(TEMPERATURE, 1.0, {"hw.sensor_location": "memory"}),
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL": Equivalent(ERRORS, 1.0, {"error.type": "corrected"}),
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL": Equivalent(ERRORS, 1.0, {"error.type": "uncorrected"}),
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": Equivalent(ERRORS, 1.0, {"error.type": "remapped_rows.corrected"}),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": Equivalent(ERRORS, 1.0, {"error.type": "remapped_rows.uncorrected"}),
}


class DcgmExporter:
    """One exporter. Its GPUs belong to the host that its labels name, else to the host of its address."""

    def __init__(self, url: str, interval_s: float) -> None:
        self._endpoint = Endpoint(url, interval_s)
        self._last_xid: dict[str, int] = {}
        self._xids: Counter[tuple[str, int]] = Counter()
        self._first_ns = 0

    def read(self, request: MetricsRequest, now_ns: int) -> None:
        """Adds what the exporter has now, and `up`. Never raises."""
        families = self._endpoint.scrape()
        self._first_ns = self._first_ns or now_ns
        own = request.resource({"service.name": "dcgm-exporter", "service.instance.id": self._endpoint.instance})
        own.number(UP, Point({}, now_ns), int(families is not None))
        if families is None:
            return
        for family in families:
            family.samples = [sample for sample in family.samples if abs(sample.value) < SENTINELS_FROM]

        def place(labels: Mapping[str, str]) -> tuple[ResourceMetrics, Attributes]:
            return request.resource({"host.name": self._host(labels)}), {**labels, **_identity(labels)}

        convert(families, place, self._endpoint.starts, now_ns)
        for sample in _gpu_samples(families):
            self._add_equivalent(request.resource({"host.name": self._host(sample.labels)}), sample, now_ns)
        self._add_memory(request, families, now_ns)

    def close(self) -> None:
        self._endpoint.close()

    def _host(self, labels: Mapping[str, str]) -> str:
        return labels.get("Hostname") or labels.get("hostname") or self._endpoint.address.hostname or ""

    def _add_equivalent(self, resource: ResourceMetrics, sample: Sample, now_ns: int) -> None:
        if sample.name == XID:
            self._add_xid(resource, sample, now_ns)
        same = EQUIVALENTS.get(sample.name)
        if same is not None:
            attributes = {"hw.type": "gpu", **_identity(sample.labels), **same.attributes}
            value = sample.value if same.instrument is not ERRORS else int(sample.value)
            resource.number(
                same.instrument, Point(attributes, now_ns), value * same.factor if same.factor != 1 else value
            )

    def _add_xid(self, resource: ResourceMetrics, sample: Sample, now_ns: int) -> None:
        """The exporter keeps showing the last code: only a change is a new error, and what was there before our first
        look is none."""
        gpu, code = sample.labels["UUID"], int(sample.value)
        if code and code != self._last_xid.get(gpu, code):
            self._xids[gpu, code] += 1
        self._last_xid[gpu] = code
        for (of, seen), count in self._xids.items():
            if of == gpu:
                attributes = {"hw.type": "gpu", **_identity(sample.labels), "error.type": f"xid.{seen}"}
                resource.number(ERRORS, Point(attributes, now_ns, self._first_ns), count)

    def _add_memory(self, request: MetricsRequest, families: list[Metric], now_ns: int) -> None:
        """The framebuffer in bytes: DCGM states its parts in MiB, and their sum is the limit."""
        parts: dict[str, dict[str, float]] = {}
        labels: dict[str, Mapping[str, str]] = {}
        for sample in _gpu_samples(families):
            if sample.name in FRAMEBUFFER:
                parts.setdefault(sample.labels["UUID"], {})[FRAMEBUFFER[sample.name]] = sample.value
                labels[sample.labels["UUID"]] = sample.labels
        for gpu, sizes in parts.items():
            if "used" not in sizes:
                continue
            resource = request.resource({"host.name": self._host(labels[gpu])})
            at = Point({"hw.type": "gpu", **_identity(labels[gpu])}, now_ns)
            total = sum(sizes.values())
            resource.number(MEMORY_USAGE, at, int(sizes["used"] * MEBIBYTE))
            if "free" in sizes and total > 0:
                resource.number(MEMORY_LIMIT, at, int(total * MEBIBYTE))
                resource.number(MEMORY_UTILIZATION, at, sizes["used"] / total)


def _gpu_samples(families: list[Metric]) -> Iterator[Sample]:
    """Samples of whole GPUs. Slices (MIG) share their GPU's UUID, so that adding them up would mean nothing."""
    for family in families:
        for sample in family.samples:
            if sample.labels.get("UUID") and not sample.labels.get("GPU_I_ID"):
                yield sample


def _identity(labels: Mapping[str, str]) -> dict[str, str]:
    """The attributes of the OTel hardware conventions, from the exporter's labels."""
    uuid = labels.get("UUID") or labels.get("gpu_uuid")
    if not uuid:
        return {}
    identity = {
        "hw.id": uuid,
        "hw.name": f"gpu{labels['gpu']}" if labels.get("gpu") else "",
        "hw.model": labels.get("modelName") or labels.get("model_name") or "",
        "hw.vendor": "NVIDIA",
        "hw.driver_version": labels.get("DCGM_FI_DRIVER_VERSION", ""),
    }
    return {key: value for key, value in identity.items() if value}
