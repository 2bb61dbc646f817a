"""Both OTLP servers on one event loop in a thread of their own, beside whatever else the process does."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import uvicorn

from collectors.otlp import address as addresses
from collectors.otlp import over_grpc
from collectors.otlp.intake import Intake
from collectors.otlp.over_http import HttpApp
from observe.interfaces import Producer
from observe.settings import OtlpSettings
from observe.telemetry import show_thread_name

WORKERS: Final = 2  # threads for large requests and JSON; each may hold one unpacked request that is not yet counted


class OtlpReceiver:
    """Receives traces, metrics and logs. `grpc_address` and `http_address` are what was bound, once started."""

    def __init__(self, producer: Producer, settings: OtlpSettings) -> None:
        self._settings = settings
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="otlp-check")
        self._intake = Intake(producer, settings, self._workers)
        self._thread: threading.Thread | None = None
        self._stop: Callable[[float], None] = lambda grace_s: None
        self.grpc_address = ""
        self.http_address = ""

    def start(self) -> None:
        """Returns when both servers take requests. Raises Misconfigured where an address cannot be bound."""
        sock = addresses.bind("collect.otlp.http", self._settings.http)
        self.http_address = addresses.join(*sock.getsockname()[:2])
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(sock, started), name="otlp-receiver", daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            self._workers.shutdown()
            raise

    def stop(self, grace_s: float = 10.0) -> None:
        """Refuses new requests and finishes those under way; after `grace_s` their senders are told to try again.
        Safe to call twice, and without a start."""
        self._stop(grace_s)
        if self._thread is not None:
            self._thread.join()
        self._workers.shutdown()

    def bytes_under_way(self) -> int:
        """Bytes of requests that are read, checked or waiting for the stream."""
        return self._intake.budget.used_bytes

    def _run(self, sock: socket.socket, started: Future[None]) -> None:
        show_thread_name()
        try:
            with contextlib.closing(sock), asyncio.Runner(loop_factory=_event_loop()) as runner:
                runner.run(self._serve(sock, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, sock: socket.socket, started: Future[None]) -> None:
        loop = asyncio.get_running_loop()
        stopping: asyncio.Future[float] = loop.create_future()

        def stop(grace_s: float) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: stopped before
                loop.call_soon_threadsafe(_settle, stopping, grace_s)

        self._stop = stop
        grpc_server = over_grpc.make_server(self._intake)
        try:
            self.grpc_address = over_grpc.bind(grpc_server, "collect.otlp.grpc", self._settings.grpc)
            await grpc_server.start()
            http_server = _HttpServer(HttpApp(self._intake, self._workers))
            http_task = asyncio.create_task(http_server.serve([sock]))
            await http_server.up.wait()
            started.set_result(None)
            grace_s = await stopping
            await asyncio.gather(grpc_server.stop(grace_s), http_server.stop(grace_s), http_task)
        finally:
            await grpc_server.stop(0)


class _HttpServer(uvicorn.Server):
    """uvicorn, told when to stop by us instead of by signals."""

    def __init__(self, app: HttpApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,  # longer than the interval of most exporters: no new connection each time
            )
        )
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def stop(self, grace_s: float) -> None:
        self.config.timeout_graceful_shutdown = math.ceil(grace_s)
        self.should_exit = True


def _settle(future: asyncio.Future[float], value: float) -> None:
    if not future.done():
        future.set_result(value)


def _event_loop() -> Callable[[], Any]:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop
