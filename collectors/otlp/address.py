"""Addresses to listen on, as settings state them."""

from __future__ import annotations

import socket

from observe.errors import Misconfigured


def parse(setting: str, address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `:port` (all interfaces) or `[v6]:port`. Port 0 lets the system choose.

    >>> parse("collect.otlp.http", "127.0.0.1:4318")
    ('127.0.0.1', 4318)
    >>> parse("collect.otlp.http", "[::1]:0")
    ('::1', 0)
    """
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise Misconfigured(f"{setting} = {address!r}: host:port is needed, with a port from 0 to 65535")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


def bind(setting: str, address: str) -> socket.socket:
    """A listening TCP socket. Raises Misconfigured where the address is taken or not ours."""
    host, port = parse(setting, address)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise Misconfigured(f"{setting} = {address!r}: cannot listen there: {error}") from error
    sock.setblocking(False)
    return sock


def join(host: str, port: int) -> str:
    """The inverse of `parse`.

    >>> join("::1", 4318)
    '[::1]:4318'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
