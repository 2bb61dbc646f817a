"""Reads the GPUs of this host and the DCGM exporters of `collect.gpu.dcgm_urls` at one interval."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

import pynvml

from collectors.gpu.dcgm import DcgmExporter
from collectors.gpu.nvml import NvmlReader
from collectors.loop import run_every
from collectors.metrics import MetricsRequest, host_name, send
from observe.errors import Misconfigured
from observe.interfaces import Producer
from observe.settings import GpuCollectorSettings

log = logging.getLogger(__name__)

SCOPE: Final = "observe.collectors.gpu"


def run_gpu(producer: Producer, settings: GpuCollectorSettings, stop: threading.Event, *, nvml: Any = pynvml) -> None:
    """Reads until `stop` is set; returns at once where there is nothing to read. `nvml` is the module that speaks to
    the driver. Raises Misconfigured where GPUs are demanded and there is no driver."""
    reader = _local_gpus(settings, nvml)
    exporters = [DcgmExporter(url, settings.interval_s) for url in settings.dcgm_urls]
    if reader is None and not exporters:
        return

    def read(now_ns: int) -> None:
        request = MetricsRequest(SCOPE)
        if reader is not None:
            reader.read(request, now_ns)
        for exporter in exporters:
            exporter.read(request, now_ns)
        send(producer, request, timeout_s=settings.interval_s)

    try:
        run_every(settings.interval_s, stop, read, "gpu")
    finally:
        if reader is not None:
            reader.close()
        for exporter in exporters:
            exporter.close()


def _local_gpus(settings: GpuCollectorSettings, nvml: Any) -> NvmlReader | None:
    if settings.enabled is False:
        return None
    reader = NvmlReader(nvml, host_name())
    try:
        reader.open()
    except nvml.NVMLError as error:
        if settings.enabled is True:
            raise Misconfigured(f"collect.gpu.enabled = true: NVML cannot be used here: {error}") from error
        log.info("no GPU metrics of this host: %s", error)
        return None
    return reader
