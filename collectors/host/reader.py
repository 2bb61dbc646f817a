"""`system.*` metrics of this host, and `process.*` of our own process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Final

import psutil

from collectors.loop import run_every
from collectors.metrics import Instrument, MetricsRequest, Point, ResourceMetrics, host_name, send
from observe.interfaces import Producer
from observe.settings import HostCollectorSettings

SCOPE: Final = "observe.collectors.host"
CPU_UTILIZATION: Final = Instrument("system.cpu.utilization", "1")
CPU_COUNT: Final = Instrument("system.cpu.logical.count", "{cpu}", "updown")
MEMORY_USAGE: Final = Instrument("system.memory.usage", "By", "updown")
MEMORY_LIMIT: Final = Instrument("system.memory.limit", "By", "updown")
MEMORY_UTILIZATION: Final = Instrument("system.memory.utilization", "1")
PAGING_USAGE: Final = Instrument("system.paging.usage", "By", "updown")
PAGING_UTILIZATION: Final = Instrument("system.paging.utilization", "1")
DISK_IO: Final = Instrument("system.disk.io", "By", "counter")
DISK_OPERATIONS: Final = Instrument("system.disk.operations", "{operation}", "counter")
NETWORK_IO: Final = Instrument("system.network.io", "By", "counter")
NETWORK_ERRORS: Final = Instrument("system.network.errors", "{error}", "counter")
PROCESS_CPU: Final = Instrument("process.cpu.time", "s", "counter")
PROCESS_MEMORY: Final = Instrument("process.memory.usage", "By", "updown")
PROCESS_THREADS: Final = Instrument("process.thread.count", "{thread}", "updown")
# `guest` times are part of `user` already, and would be counted twice.
CPU_MODES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
MEMORY_STATES: Final = ("used", "free", "cached", "buffers")
VIRTUAL_DISKS: Final = ("loop", "ram", "zram")


def run_host(producer: Producer, settings: HostCollectorSettings, stop: threading.Event) -> None:
    """Reads until `stop` is set."""
    reader = HostReader()

    def read(now_ns: int) -> None:
        request = MetricsRequest(SCOPE)
        reader.read(request, now_ns)
        send(producer, request, timeout_s=settings.interval_s)

    run_every(settings.interval_s, stop, read, "host")


class HostReader:
    """Reads everything once per call. CPU utilization is over the time since the call before."""

    def __init__(self) -> None:
        self._host = host_name()
        self._process = psutil.Process()
        self._boot_ns = int(psutil.boot_time() * 1e9)
        self._process_start_ns = int(self._process.create_time() * 1e9)
        self._cpu: Mapping[str, float] = _cpu_times()

    def read(self, request: MetricsRequest, now_ns: int) -> None:
        host = request.resource({"host.name": self._host})
        self._read_cpu(host, now_ns)
        _read_memory(host, now_ns)
        self._read_disks(host, now_ns)
        self._read_network(host, now_ns)
        self._read_process(request, now_ns)

    def _read_cpu(self, host: ResourceMetrics, now_ns: int) -> None:
        before, self._cpu = self._cpu, _cpu_times()
        spent = {mode: max(seconds - before.get(mode, 0.0), 0.0) for mode, seconds in self._cpu.items()}
        total = sum(spent.values())
        host.number(CPU_COUNT, Point({}, now_ns), psutil.cpu_count() or 1)
        if total > 0:
            for mode, seconds in spent.items():
                host.number(CPU_UTILIZATION, Point({"cpu.mode": mode}, now_ns), seconds / total)

    def _read_disks(self, host: ResourceMetrics, now_ns: int) -> None:
        for device, io in (psutil.disk_io_counters(perdisk=True) or {}).items():
            if device.startswith(VIRTUAL_DISKS):
                continue
            for direction in ("read", "write"):
                attributes = {"system.device": device, "disk.io.direction": direction}
                at = Point(attributes, now_ns, self._boot_ns)
                host.number(DISK_IO, at, int(getattr(io, f"{direction}_bytes")))
                host.number(DISK_OPERATIONS, at, int(getattr(io, f"{direction}_count")))

    def _read_network(self, host: ResourceMetrics, now_ns: int) -> None:
        for name, io in psutil.net_io_counters(pernic=True).items():
            for direction, moved, errors in (
                ("receive", io.bytes_recv, io.errin),
                ("transmit", io.bytes_sent, io.errout),
            ):
                attributes = {"network.interface.name": name, "network.io.direction": direction}
                at = Point(attributes, now_ns, self._boot_ns)
                host.number(NETWORK_IO, at, int(moved))
                host.number(NETWORK_ERRORS, at, int(errors))

    def _read_process(self, request: MetricsRequest, now_ns: int) -> None:
        own = request.resource({"host.name": self._host, "service.name": "observe", "process.pid": os.getpid()})
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            for mode, seconds in (("user", cpu.user), ("system", cpu.system)):
                own.number(PROCESS_CPU, Point({"cpu.mode": mode}, now_ns, self._process_start_ns), float(seconds))
            own.number(PROCESS_MEMORY, Point({}, now_ns), int(self._process.memory_info().rss))
            own.number(PROCESS_THREADS, Point({}, now_ns), self._process.num_threads())


def _read_memory(host: ResourceMetrics, now_ns: int) -> None:
    memory = psutil.virtual_memory()
    host.number(MEMORY_LIMIT, Point({}, now_ns), int(memory.total))
    for state in MEMORY_STATES:
        if hasattr(memory, state):
            at = Point({"system.memory.state": state}, now_ns)
            host.number(MEMORY_USAGE, at, int(getattr(memory, state)))
            host.number(MEMORY_UTILIZATION, at, getattr(memory, state) / memory.total)
    swap = psutil.swap_memory()
    for state, size in (("used", swap.used), ("free", swap.free)):
        at = Point({"system.paging.state": state}, now_ns)
        host.number(PAGING_USAGE, at, int(size))
        if swap.total:
            host.number(PAGING_UTILIZATION, at, size / swap.total)


def _cpu_times() -> Mapping[str, float]:
    """Seconds since boot of all processors together, by mode."""
    times = psutil.cpu_times()
    return {mode: float(getattr(times, mode)) for mode in CPU_MODES if hasattr(times, mode)}
