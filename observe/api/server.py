"""The API on an address: uvicorn in a thread, stopped cleanly."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn

from observe.errors import Misconfigured

START_S = 10.0
STOP_S = 3.0


class Server:
    """A running server. `address` is the bound host:port, also where port 0 was asked for."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"http://{self.address}"
        # Its own log settings would replace those of the process.
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=int(STOP_S)
        )
        self._server = uvicorn.Server(config)
        self._socket = listening
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="api", daemon=True
        )

    def start(self) -> None:
        """Returns once it answers."""
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise Misconfigured(f"api.address = {self.address!r}: the server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Lets requests under way finish, then ends. Safe to call twice."""
        self._server.should_exit = True
        self._thread.join(STOP_S + 1.0)
        self._socket.close()


def serve(app: Any, address: str) -> Server:
    """Starts `app` on host:port; raises Misconfigured where the address cannot be had."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or int(port) > 65535:
        raise Misconfigured(f"api.address = {address!r}: host:port is allowed")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise Misconfigured(f"api.address = {address!r}: {error.strerror or error}; name another") from error
    server = Server(app, listening)
    server.start()
    return server
