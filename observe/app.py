"""The only file that names concrete classes: it wires them, starts them, and stops them in order.

Each part imports what it needs when it starts: a collector is up in a second because it loads no database.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, TypeVar

from observe.asking import Asking
from observe.errors import Counting, Damaged, Misconfigured, Unavailable
from observe.frames import Frames
from observe.interfaces import Producer, Store, Stream
from observe.settings import Settings
from observe.stream import open_stream
from observe.telemetry import RETRIES, show_thread_name
from observe.types import TOPICS, BatchLimits, Incident, Json
from observe.wire import incident_json

if TYPE_CHECKING:
    from observe.doctor import Check
    from observe.judging import Judging

log = logging.getLogger(__name__)
T = TypeVar("T")

METRICS_AGE = 2.5
"""Batches of metrics wait so many times as long as others: five kinds of points make an insert of them the dearest."""

DRAIN_S = 6.0
"""How long a stopping process goes on moving what it holds; all of it is durable on the stream anyway."""


class Process:
    """Parts that run together. They start in order and stop in the opposite one; a part that dies stops them all."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.failed = False
        self.stuck = False
        self.damaged: Damaged | None = None
        self._before_again: list[Callable[[], object]] = []
        self._exit = ExitStack()

    def on_stop(self, callback: Callable[[], object]) -> None:
        self._exit.callback(callback)

    def on_restart(self, callback: Callable[[], object]) -> None:
        """What must be ended although the process starts again at once."""
        self._before_again.append(callback)

    def thread(
        self, name: str, run: Callable[[threading.Event], None], *, count: int = 1, join_s: float = DRAIN_S
    ) -> None:
        """Runs `run(stop)` until the process stops, in so many threads."""
        stop = threading.Event()

        def guarded() -> None:
            show_thread_name()
            try:
                run(stop)
            except Damaged as error:
                log.critical("%s: %s", name, error)
                self.damaged = error
                self.stopping.set()
            except Exception:
                log.critical("%s failed: this process stops", name, exc_info=True)
                self.failed = True
                self.stopping.set()

        workers = [threading.Thread(target=guarded, name=name, daemon=True) for _ in range(count)]
        for worker in workers:
            worker.start()

        def end() -> None:
            stop.set()
            deadline = time.monotonic() + join_s
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
                if worker.is_alive():
                    log.warning("%s did not stop within %g s", name, join_s)
                    self.stuck = True

        self.on_stop(end)

    def run(self, ready: Callable[[], None] = lambda: None) -> int:
        """Waits for SIGTERM or SIGINT, then stops everything; the exit code. Raises Damaged where it is to start again,
        and stops nothing then: what it would still write could be cut off as well."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        ready()
        while not self.stopping.wait(1.0):
            pass
        if self.damaged is not None:
            self._exit.pop_all()
            for end in self._before_again:
                end()
            raise self.damaged
        log.info("stopping")
        self._exit.close()
        code = 1 if self.failed else 0
        if self.stuck:  # the interpreter's end would wait for what the thread is in; nothing is lost by not waiting
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
        return code

    def close(self) -> None:
        self._exit.close()


def patiently(what: str, act: Callable[[], T], stopping: threading.Event | None = None) -> T:
    """The result of `act`, waiting with backoff while a server is away."""
    delay_s = 0.5
    while True:
        try:
            return act()
        except Unavailable as error:
            RETRIES.labels(what).inc()
            log.warning("waiting for the %s: %s", what, error)
            if stopping is not None and stopping.wait(delay_s):
                raise
            if stopping is None:
                time.sleep(delay_s)
            delay_s = min(30.0, delay_s * 2)


def up(settings: Settings, *, ready: Callable[[], None]) -> int:
    """Everything in one process (the dashboard in a child): receivers, writer, watcher, API."""
    process = Process()
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        process.on_stop(_lock(settings).close)
        _run_up(process, settings)
        return process.run(ready)
    finally:
        process.close()


def _run_up(process: Process, settings: Settings) -> None:
    stream = open_stream(settings)
    patiently("stream", lambda: _stream_ready(stream))
    store = _store(settings, process)
    _writer(process, stream, store, settings)
    _watcher(process, store, settings)
    _api(process, store, stream, settings)
    producer = _producer(process, stream)
    _otlp(process, producer, settings)
    wanted = {
        "gpu": bool(settings.collect.gpu.enabled),
        "inference": bool(settings.collect.inference.targets),
        "host": settings.collect.host.enabled,
    }
    for kind in (kind for kind, on in wanted.items() if on):
        _periodic_collector(process, producer, kind, settings)
    if settings.dashboard.enabled:
        _dashboard(process, settings)


def collect(kind: str, settings: Settings, *, ready: Callable[[], None]) -> int:
    """A production role: one kind of collector."""
    process = Process()
    try:
        stream = open_stream(settings)
        patiently("stream", lambda: _stream_ready(stream))
        producer = _producer(process, stream)
        if kind == "otlp":
            _otlp(process, producer, settings)
        else:
            _periodic_collector(process, producer, kind, settings)
        return process.run(ready)
    finally:
        process.close()


def write(settings: Settings, *, ready: Callable[[], None]) -> int:
    """A production role: stream to store. Several may run; they share the partitions."""
    process = Process()
    try:
        stream = open_stream(settings)
        patiently("stream", lambda: _stream_ready(stream))
        _writer(process, stream, _store(settings, process), settings)
        return process.run(ready)
    finally:
        process.close()


def watch(settings: Settings, *, ready: Callable[[], None]) -> int:
    """A production role: store to incidents and webhooks. One runs."""
    process = Process()
    try:
        _watcher(process, _store(settings, process), settings)
        return process.run(ready)
    finally:
        process.close()


def api(settings: Settings, *, ready: Callable[[], None]) -> int:
    """A production role: the read API."""
    process = Process()
    try:
        stream = open_stream(settings)
        _api(process, _store(settings, process), stream, settings)
        return process.run(ready)
    finally:
        process.close()


def dashboard(settings: Settings, *, ready: Callable[[], None]) -> int:
    """A production role: the pages."""
    process = Process()
    try:
        _dashboard(process, settings)
        return process.run(ready)
    finally:
        process.close()


def migrate(settings: Settings) -> list[str]:
    """Creates topics and tables; what was done, one line each."""
    stream = open_stream(settings)
    admin = patiently("stream", stream.admin)
    try:
        done = patiently("stream", admin.migrate)
    finally:
        admin.close()
    with opened_store(settings) as store:
        return [*done, *patiently("store", store.migrate)]


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """The store by itself, for commands that ask it without the API."""
    from observe.store import ClickHouseStore

    store = ClickHouseStore(settings.store, settings.retention)
    try:
        yield store
    finally:
        store.close()


def audit_of(settings: Settings) -> Json:
    """The audit, read from stream and store directly."""
    from observe.audit import audit

    admin = open_stream(settings).admin()
    try:
        with opened_store(settings) as store:
            while True:
                try:
                    return audit(store, admin, settings.writer.group) | {"storage": storage(store)}
                except Counting as error:
                    log.warning("%s", error)
    finally:
        admin.close()


def storage(store: Store) -> Json:
    """Rows and bytes on disk, per table."""
    sql = """SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts
             WHERE active AND database = currentDatabase() GROUP BY table ORDER BY table"""
    return {row["table"]: {"rows": row["rows"], "bytes": row["bytes"]} for row in store.query(sql).to_dicts()}


def replay_of(store: Store, from_ns: int, to_ns: int, settings: Settings, progress: Callable[[float], None]) -> Json:
    """What `observe replay` prints."""
    from observe import pipeline

    def read(first_ns: int, last_ns: int) -> Frames:
        return pipeline.picture(store, first_ns, last_ns, settings)

    asked = pipeline.asked_of(Asking(store), settings)
    incidents = pipeline.replay(read, from_ns, to_ns, settings, progress=progress, asked=asked)
    return {"incidents": [incident_json(incident) for incident in incidents]}


def judging_of(store: Store, settings: Settings) -> Judging:
    """Budgets, comparisons of versions, backtests."""
    from observe.judging import Judging

    return Judging(store, settings)


def doctor(settings: Settings) -> list[Check]:
    """What is wrong here, and what to do about it."""
    from observe.doctor import Parts, Waiting, examine

    def opened() -> Store:
        from observe.store import ClickHouseStore

        return ClickHouseStore(settings.store, settings.retention)

    def known() -> list[str]:
        from observe.store.migrate import migrations

        return [name for name, _ in migrations()]

    def stream() -> Waiting:
        admin = open_stream(settings).admin()
        try:
            states = [s for s in admin.partitions(settings.writer.group) if s.topic in TOPICS.values()]
            waiting = sum(state.end - state.committed for state in states)
            return Waiting(sorted({state.topic for state in states}), waiting, admin.full())
        finally:
            admin.close()

    def short_of(path: str) -> str:
        from observe.store.room import short_of

        return short_of(path)

    return examine(settings, Parts(opened, known, stream, short_of))


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lock(settings: Settings) -> IO[str]:
    """Holds the data folder: two processes in one would both believe that the store is theirs."""
    path = settings.data / "lock"
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        raise Misconfigured(
            f"data = {str(settings.data)!r} is in use by process {handle.read().strip() or '?'}; "
            "stop it, or name another folder with --data"
        ) from error
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _stream_ready(stream: Stream) -> None:
    admin = stream.admin()
    try:
        for line in admin.migrate():
            log.info("stream: %s", line)
    finally:
        admin.close()


def _store(settings: Settings, process: Process) -> Store:
    from observe.store import ClickHouseStore

    store = patiently("store", lambda: ClickHouseStore(settings.store, settings.retention), process.stopping)
    process.on_stop(store.close)
    for name in patiently("store", store.migrate, process.stopping):
        log.info("store: applied %s", name)
    if settings.store.startswith("chdb:"):
        process.thread("disk", store.watch_disk)
    return store


def _producer(process: Process, stream: Stream) -> Producer:
    producer = stream.producer()

    def end() -> None:
        producer.flush(5.0)
        producer.close()

    process.on_stop(end)
    return producer


def _otlp(process: Process, producer: Producer, settings: Settings) -> None:
    from collectors.otlp import OtlpReceiver

    receiver = OtlpReceiver(producer, settings.collect.otlp)
    receiver.start()
    process.on_stop(lambda: receiver.stop(3.0))
    log.info("OTLP: gRPC %s, HTTP %s", receiver.grpc_address, receiver.http_address)


def _collectors(settings: Settings) -> dict[str, Callable[[Producer, threading.Event], None]]:
    from collectors.gpu import run_gpu
    from collectors.host import run_host
    from collectors.inference import run_inference

    return {
        "gpu": lambda producer, stop: run_gpu(producer, settings.collect.gpu, stop),
        "inference": lambda producer, stop: run_inference(producer, settings.collect.inference, stop),
        "host": lambda producer, stop: run_host(producer, settings.collect.host, stop),
    }


def _periodic_collector(process: Process, producer: Producer, kind: str, settings: Settings) -> None:
    run = _collectors(settings)[kind]
    process.thread(f"collect-{kind}", lambda stop: run(producer, stop))


def _writer(process: Process, stream: Stream, store: Store, settings: Settings) -> None:
    from observe.ingest import ingest
    from observe.repeats import Repeats

    w = settings.writer
    ages_s = {TOPICS["metrics"]: METRICS_AGE * w.batch_max_age_s}
    limits = BatchLimits(w.batch_max_bytes or _batch_bytes(settings), w.batch_max_records, w.batch_max_age_s, ages_s)

    def run(stop: threading.Event) -> None:
        consumer = stream.consumer(w.group, tuple(TOPICS.values()), limits)
        dead_letters = stream.producer()
        try:
            # The local stream keeps a repeated export once by itself.
            repeats = Repeats(store) if settings.stream.startswith("kafka://") else None
            ingest(consumer, store, dead_letters, stop=stop.is_set, repeats=repeats)
        finally:
            dead_letters.close()
            consumer.close()

    process.thread("writer", run, count=w.threads)


def _batch_bytes(settings: Settings) -> int:
    """Each insert costs 0.1 to 0.2 s of CPU whatever is in it, and makes a part to be merged. With chdb:// it also
    takes about twelve times its bytes of this process's memory."""
    return (32 if settings.store.startswith("chdb:") else 64) * 2**20


def _watcher(process: Process, store: Store, settings: Settings) -> None:
    from observe import pipeline
    from observe.alert import Deliverer, not_silenced, notifiers_of

    deliverer = Deliverer(notifiers_of(settings.alert), store.save_notified)
    deliverer.start()
    process.on_stop(deliverer.stop)

    def tell(incidents: Sequence[Incident], now_ns: int) -> None:
        audible = not_silenced(incidents, store.silences(now_ns), now_ns)
        notified = store.notified([incident.id for incident in audible])
        deliverer.tell(audible, notified, now_ns, settings.alert)

    def run(stop: threading.Event) -> None:
        def wait_until(at_ns: int) -> bool:
            return not stop.wait(max(0.0, (at_ns - time.time_ns()) / 1e9))

        pipeline.watch(store, tell, settings, clock=time.time_ns, wait_until=wait_until)

    process.thread("watcher", run)


def _api(process: Process, store: Store, stream: Stream, settings: Settings) -> None:
    from observe.api import create_app, serve
    from observe.audit import audit
    from observe.store.read import Reader

    admin = patiently("stream", stream.admin, process.stopping)
    process.on_stop(admin.close)
    app = create_app(
        Reader(store),
        store,
        audit=lambda: audit(store, admin, settings.writer.group) | {"storage": storage(store)},
        replay=lambda from_ns, to_ns: replay_of(store, from_ns, to_ns, settings, lambda share: None),
        judge=judging_of(store, settings),
    )
    server = serve(app, settings.api.address)
    process.on_stop(server.stop)
    log.info("API: http://%s/api/v1", server.address)


def _dashboard(process: Process, settings: Settings) -> None:
    from dashboards.run import command

    child = subprocess.Popen(command(settings.dashboard.address, settings.dashboard.api_url), stdin=subprocess.PIPE)

    def end() -> None:
        child.terminate()
        try:
            child.wait(3.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    process.on_stop(end)
    process.on_restart(end)
    log.info("dashboard: http://%s", settings.dashboard.address)
