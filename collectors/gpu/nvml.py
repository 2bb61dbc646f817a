"""The GPUs of this host, through NVIDIA's management library."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from collectors.gpu.readings import ERRORS, READINGS, STATUS, Reading
from collectors.metrics import MetricsRequest, Point, ResourceMetrics
from observe.errors import Unavailable

log = logging.getLogger(__name__)

MAX_EVENTS: Final = 1000  # of one reading: a GPU that floods its events must not hold the loop
STATES: Final = ("ok", "degraded", "failed")


@dataclass
class _Gpu:
    handle: Any
    attributes: Mapping[str, str]
    without: set[int] = field(default_factory=set)  # indexes of the readings that this GPU does not have
    xids: Counter[int] = field(default_factory=Counter)


class NvmlReader:
    """Reads all GPUs once per call. A value that a GPU does not have is left out; the others stay."""

    def __init__(self, nvml: Any, host: str) -> None:
        self._nvml = nvml
        self._host = host
        self._gpus: dict[str, _Gpu] = {}  # by UUID
        self._events: Any = None
        self._opened_ns = 0
        self._open = False

    def open(self) -> None:
        """Raises NVMLError where there is no driver."""
        self._nvml.nvmlInit()
        self._open = True
        try:
            driver = self._text(self._nvml.nvmlSystemGetDriverVersion)
            for index in range(self._nvml.nvmlDeviceGetCount()):
                self._add(index, driver)
            self._watch_events()
        except self._nvml.NVMLError:
            self.close()
            raise

    def read(self, request: MetricsRequest, now_ns: int) -> None:
        """Raises Unavailable where the driver went away; the next call finds it again if it is back."""
        try:
            if not self._open:
                self.open()
            self._opened_ns = self._opened_ns or now_ns
            self._count_events()
        except self._nvml.NVMLError as error:
            self.close()
            raise Unavailable(f"NVML: {error}") from error
        resource = request.resource({"host.name": self._host})
        for gpu in self._gpus.values():
            self._read_gpu(resource, gpu, now_ns)

    def close(self) -> None:
        with contextlib.suppress(self._nvml.NVMLError):
            if self._events is not None:
                self._nvml.nvmlEventSetFree(self._events)
        with contextlib.suppress(self._nvml.NVMLError):
            if self._open:
                self._nvml.nvmlShutdown()
        self._events, self._open = None, False

    def _add(self, index: int, driver: str) -> None:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = self._nvml.nvmlDeviceGetUUID(handle)
        attributes = {
            "hw.id": uuid,
            "hw.name": f"gpu{index}",
            "hw.model": self._text(self._nvml.nvmlDeviceGetName, handle),
            "hw.vendor": "NVIDIA",
            "hw.serial_number": self._text(self._nvml.nvmlDeviceGetSerial, handle),
            "hw.driver_version": driver,
        }
        known = self._gpus.get(uuid)  # what was counted outlives a driver that went away
        xids = known.xids if known is not None else Counter[int]()
        self._gpus[uuid] = _Gpu(handle, {key: value for key, value in attributes.items() if value}, xids=xids)

    def _read_gpu(self, resource: ResourceMetrics, gpu: _Gpu, now_ns: int) -> None:
        lost = False
        for index, reading in enumerate(READINGS):
            if index in gpu.without:
                continue
            try:
                value = reading.read(self._nvml, gpu.handle)
            except self._nvml.NVMLError as error:
                lost = lost or self._is_lost(error)
                if isinstance(error, (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_FunctionNotFound)):
                    gpu.without.add(index)
                continue
            resource.number(reading.instrument, _point(gpu, reading, now_ns), value)
        for code, count in gpu.xids.items():
            attributes = {**gpu.attributes, "hw.type": "gpu", "error.type": f"xid.{code}"}
            resource.number(ERRORS, Point(attributes, now_ns, self._opened_ns), count)
        now = "failed" if lost else self._remap_state(gpu)
        for state in STATES:
            attributes = {**gpu.attributes, "hw.type": "gpu", "hw.state": state}
            resource.number(STATUS, Point(attributes, now_ns), int(state == now))

    def _is_lost(self, error: Exception) -> bool:
        return isinstance(error, (self._nvml.NVMLError_GpuIsLost, self._nvml.NVMLError_ResetRequired))

    def _remap_state(self, gpu: _Gpu) -> str:
        """A row of memory that could not be replaced is a failure; one that waits for a reset degrades."""
        try:
            _, _, pending, failure = self._nvml.nvmlDeviceGetRemappedRows(gpu.handle)
        except self._nvml.NVMLError as error:
            return "failed" if self._is_lost(error) else "ok"
        return "failed" if failure else "degraded" if pending else "ok"

    def _watch_events(self) -> None:
        try:
            self._events = self._nvml.nvmlEventSetCreate()
        except self._nvml.NVMLError as error:
            log.info("no XID errors of GPUs: %s", error)
            return
        for gpu in self._gpus.values():
            with contextlib.suppress(self._nvml.NVMLError_NotSupported):
                self._nvml.nvmlDeviceRegisterEvents(gpu.handle, self._nvml.nvmlEventTypeXidCriticalError, self._events)

    def _count_events(self) -> None:
        for uuid, code in self._new_events():
            if uuid in self._gpus:
                self._gpus[uuid].xids[code] += 1

    def _new_events(self) -> Iterator[tuple[str, int]]:
        """UUID and XID of the errors since the last call."""
        for _ in range(MAX_EVENTS if self._events is not None else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError_Timeout:
                return
            except self._nvml.NVMLError_GpuIsLost:
                return  # the readings of that GPU say so
            yield self._nvml.nvmlDeviceGetUUID(event.device), int(event.eventData)

    def _text(self, call: Any, *arguments: Any) -> str:
        try:
            return str(call(*arguments))
        except self._nvml.NVMLError:
            return ""


def _point(gpu: _Gpu, reading: Reading, now_ns: int) -> Point:
    return Point({"hw.type": "gpu", **gpu.attributes, **reading.attributes}, now_ns)
