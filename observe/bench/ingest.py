"""`observe bench ingest`: OTLP bytes in to rows readable, end to end, against a running tree of processes of ours."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil

from observe.bench.traces import TraceLoad
from observe.client import Client
from observe.errors import ObserveError, Unavailable
from observe.types import Json

AGE_NS = 2 * 10**9
THREADS = 12
"""Names of threads that are told, the busiest first."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
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
        Load(grpc_to, spans, in_flight) as load,
    ):
        before = client.audit()["signals"]["spans"]
        ours = {"observe": process.pid, **servers}
        with Meter(ours) as meter:
            begin = time.perf_counter()
            load.begin.set()
            load_cpu_s = load.finished()
            sent_s = time.perf_counter() - begin
            now = _wait_until_stored(client, before["accepted"], spans)
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
            "of_that_by_thread": {name: round(cpu / million, 2) for name, cpu in meter.thread_cpu_s.items()},
            "peak_memory_mib": {name: round(peak / 2**20) for name, peak in meter.peak_bytes.items()},
            "bytes_on_disk_per_span": _per_span(storage),
        }


class Load:
    """A process that sends spans, made ready before it is told to begin: its imports and templates are not measured."""

    def __init__(self, target: str, spans: int, in_flight: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready, self.begin = context.Event(), context.Event()
        self._process = context.Process(
            target=_send_when_told, args=(target, spans, in_flight, self._ready, self.begin)
        )

    def __enter__(self) -> Load:
        self._process.start()
        while not self._ready.wait(0.2):
            self._check(alive=True)
        self._cpu_s = _cpu_s(psutil.Process(self._process.pid))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def finished(self) -> float:
        """Waits until all is acknowledged; CPU seconds since the beginning."""
        process, cpu_s = psutil.Process(self._process.pid), self._cpu_s
        while self._process.is_alive():
            with contextlib.suppress(psutil.Error):
                cpu_s = _cpu_s(process)
            self._process.join(0.05)
        self._check(alive=False)
        return cpu_s - self._cpu_s

    def _check(self, *, alive: bool) -> None:
        if self._process.exitcode not in ((None,) if alive else (0,)):
            raise Unavailable("the load generator failed; see its message above")


def _send_when_told(target: str, spans: int, in_flight: int, ready: Event, begin: Event) -> None:
    load = TraceLoad()
    ready.set()
    begin.wait()
    send(target, spans, in_flight, load)


def send(target: str, spans: int, in_flight: int, load: TraceLoad | None = None) -> None:
    """Exports whole rounds until at least `spans` were acknowledged; retries what the server asks to retry.

    The spans of a round end up to AGE_NS before it is sent, as with an SDK that exports each second or so.
    """
    load = load or TraceLoad()
    channel = grpc.insecure_channel(target, options=[("grpc.max_send_message_length", -1)])
    export = channel.unary_unary(EXPORT)
    waiting: deque[tuple[bytes, Any]] = deque()
    sent = 0
    while sent < spans or waiting:
        if sent < spans:
            for body, count in load.round(time.time_ns() - AGE_NS):
                while len(waiting) >= in_flight:
                    _acknowledged(waiting, export)
                waiting.append((body, export.future(body, timeout=30)))
                sent += count
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
        self._threads = Threads(list(roots.values()))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._before: dict[str, float] = {}
        self._threads_before: Counter[str] = Counter()
        self.cpu_s: dict[str, float] = {}
        self.thread_cpu_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = dict.fromkeys(roots, 0)

    def __enter__(self) -> Meter:
        self._before = {name: _cpu_s(root) for name, root in self._roots.items()}
        self._threads_before = self._threads.total()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu_s = {name: _cpu_s(root) - self._before[name] for name, root in self._roots.items()}
        spent = self._threads.total() - self._threads_before
        self.thread_cpu_s = {name: ticks / TICKS_PER_S for name, ticks in spent.most_common(THREADS)}

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self._threads.total()
            for name, root in self._roots.items():
                self.peak_bytes[name] = max(self.peak_bytes[name], _resident_bytes(root))


class Threads:
    """CPU of the threads of some processes, in clock ticks by the names that the system knows them by.

    A thread that has ended counts as it was when seen last. Raises nothing where /proc is missing: then there are none.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._seen: dict[str, tuple[str, int]] = {}

    def total(self) -> Counter[str]:
        for pid in self._pids:
            for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
                with contextlib.suppress(OSError):
                    head, _, tail = stat.read_text().rpartition(") ")
                    number, _, name = head.partition(" (")
                    user, system = tail.split()[11:13]
                    self._seen[f"{pid}/{number}"] = name, int(user) + int(system)
        found: Counter[str] = Counter()
        for name, ticks in self._seen.values():
            found[name] += ticks
        return found


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


def _wait_until_stored(client: Client, accepted_before: int, spans: int, timeout_s: float = 300.0) -> Json:
    """The audit counts rows, so it is asked only when the writer says that it has written them."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if _written(client) >= spans:
            now: Json = client.audit()["signals"]["spans"]
            if now["pending"] == 0 and now["accepted"] >= accepted_before + spans:
                return now
        time.sleep(0.1)
    raise Unavailable(f"spans are still pending after {timeout_s:g} s")


def _written(client: Client) -> float:
    """Spans that the writer of this process has stored since it started; 0 where it has said nothing yet."""
    text = httpx.get(f"{client.url}/metrics", trust_env=False).text
    found = re.search(r'^observe_written_items_total\{signal="spans"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


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
