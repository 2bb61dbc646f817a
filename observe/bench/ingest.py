"""`observe bench ingest`: OTLP bytes in to rows readable, end to end, against a running tree of processes of ours."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil

from observe.bench.traces import TraceLoad
from observe.client import Client
from observe.errors import ObserveError, Unavailable
from observe.types import Json

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def ingest(
    spans: int, *, stream: str | None, store: str | None, servers: Mapping[str, int], in_flight: int = 16
) -> Json:
    """Starts `observe up` on `stream` and `store`, sends `spans` over OTLP/gRPC, and waits until all can be read.

    `servers` names processes (by pid) of the broker and the database, so that their work is counted too.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        _observe_up(Path(folder), stream, store) as (process, grpc_to, client),
    ):
        before = client.audit()["signals"]["spans"]
        ours = {"observe": process.pid, **servers}
        with Meter(ours) as meter:
            begin = time.perf_counter()
            context = multiprocessing.get_context("spawn")
            load = context.Process(target=send, args=(grpc_to, spans, in_flight))
            load.start()
            load_process = psutil.Process(load.pid)
            load_cpu_s = 0.0
            while load.is_alive():
                with contextlib.suppress(psutil.Error):
                    load_cpu_s = _cpu_s(load_process)
                load.join(0.2)
            if load.exitcode != 0:
                raise Unavailable("the load generator failed; see its message above")
            sent_s = time.perf_counter() - begin
            now = _wait_until_stored(client, before["accepted"])
            seconds = time.perf_counter() - begin
        stored = now["stored"] - before["stored"]
        million = stored / 1e6
        storage = client.audit().get("storage", {})
        return {
            "benchmark": "ingest",
            "stream": (stream or "local").split(":")[0],
            "store": (store or "chdb").split(":")[0],
            "cores": os.cpu_count(),
            "spans": stored,
            "accepted": now["accepted"] - before["accepted"],
            "rejected": now["rejected"] - before["rejected"],
            "seconds": round(seconds, 2),
            "seconds_until_acknowledged": round(sent_s, 2),
            "spans_per_s": round(stored / seconds),
            "cpu_s_per_million_spans": {
                **{name: round(cpu / million, 2) for name, cpu in meter.cpu_s.items()},
                "load_generator": round(load_cpu_s / million, 2),
            },
            "peak_memory_mib": {name: round(peak / 2**20) for name, peak in meter.peak_bytes.items()},
            "bytes_on_disk_per_span": _per_span(storage),
        }


def send(target: str, spans: int, in_flight: int) -> None:
    """Exports whole rounds until at least `spans` were acknowledged; retries what the server asks to retry."""
    load = TraceLoad()
    channel = grpc.insecure_channel(target, options=[("grpc.max_send_message_length", -1)])
    export = channel.unary_unary(EXPORT)
    waiting: deque[tuple[bytes, Any]] = deque()
    sent, start_ns = 0, time.time_ns() - 120 * 10**9
    while sent < spans or waiting:
        if sent < spans:
            for body, count in load.round(start_ns):
                while len(waiting) >= in_flight:
                    _acknowledged(waiting, export)
                waiting.append((body, export.future(body, timeout=30)))
                sent += count
            start_ns += 10**9
        else:
            _acknowledged(waiting, export)
    channel.close()


def _acknowledged(waiting: deque[tuple[bytes, Any]], export: Any) -> None:
    body, future = waiting.popleft()
    try:
        future.result()
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        time.sleep(0.2)
        waiting.appendleft((body, export.future(body, timeout=30)))


class Meter:
    """CPU seconds and peak resident memory of process trees while the context is open."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._before: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = dict.fromkeys(roots, 0)

    def __enter__(self) -> Meter:
        self._before = {name: _cpu_s(root) for name, root in self._roots.items()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu_s = {name: _cpu_s(root) - self._before[name] for name, root in self._roots.items()}

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            for name, root in self._roots.items():
                self.peak_bytes[name] = max(self.peak_bytes[name], _resident_bytes(root))


def _tree(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def _cpu_s(root: psutil.Process) -> float:
    total = 0.0
    for process in _tree(root):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _resident_bytes(root: psutil.Process) -> int:
    total = 0
    for process in _tree(root):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _wait_until_stored(client: Client, accepted_before: int, timeout_s: float = 300.0) -> Json:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        now: Json = client.audit()["signals"]["spans"]
        if now["pending"] == 0 and now["accepted"] > accepted_before:
            return now
        time.sleep(1.0)  # an audit counts rows: asked more often, it would be what is measured
    raise Unavailable(f"spans are still pending after {timeout_s:g} s")


def _per_span(storage: Mapping[str, Mapping[str, int]]) -> Json:
    rows = storage.get("otel_traces", {}).get("rows", 0)
    if not rows:
        return {}
    tables = {name: table["bytes"] / rows for name, table in storage.items() if table["bytes"] > rows}
    return {
        "otel_traces": round(tables.get("otel_traces", 0.0), 1),
        "all_tables": round(sum(table["bytes"] for table in storage.values()) / rows, 1),
    }


@contextlib.contextmanager
def _observe_up(
    folder: Path, stream: str | None, store: str | None
) -> Iterator[tuple[subprocess.Popen[bytes], str, Client]]:
    grpc_to, http_to, api = (f"127.0.0.1:{port}" for port in _free_ports(3))
    command = [sys.executable, "-m", "observe", "up", "--no-dashboard", "--data", str(folder / "data")]
    command += ["--otlp-grpc", grpc_to, "--otlp-http", http_to, "--api", api, "--log-level", "warning"]
    command += ["--stream", stream] if stream else []
    command += ["--store", store] if store else []
    process = subprocess.Popen(command, cwd=folder)
    try:
        client = Client(f"http://{api}")
        _wait_until_ready(process, client)
        yield process, grpc_to, client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], client: Client) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise Unavailable(f"observe up ended with exit code {process.returncode}")
        with contextlib.suppress(ObserveError):
            client.health()
            return
        time.sleep(0.1)
    raise Unavailable("observe up was not ready within 60 s")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
