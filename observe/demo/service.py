"""One service of the fleet as a process: python -m observe.demo.service NAME [options].

Every option has a variable (DEMO_PORT for --port), so that a container needs no command line.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
from collections.abc import Mapping, Sequence

from observe.demo.loop import run
from observe.demo.topology import SERVICES, UNSEEN_PATHS, Instance
from observe.errors import Misconfigured

DEFAULT_PORT = 8000


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments, os.environ)
    me = Instance(options.service, options.instance, options.host, options.version)
    _instrument(me)
    run(serve(me, options))


def parse(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> argparse.Namespace:
    def default(name: str, otherwise: str) -> str:
        return environ.get(f"DEMO_{name}", otherwise)

    parser = argparse.ArgumentParser(prog="python -m observe.demo.service", description=__doc__)
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument("--listen", default=default("LISTEN", "127.0.0.1"), help="address to listen on")
    parser.add_argument("--port", type=int, default=default("PORT", str(DEFAULT_PORT)))
    parser.add_argument("--instance", default=default("INSTANCE", ""), help="service.instance.id")
    parser.add_argument("--host", default=default("HOST", socket.gethostname()), help="host.name")
    parser.add_argument("--version", default=default("VERSION", ""), help="service.version")
    parser.add_argument("--seed", default=default("SEED", "1"))
    parser.add_argument(
        "--peers",
        default=default("PEERS", ""),
        help="service=url[,url…];service=… ; default: http://SERVICE:8000 of each service that this one calls",
    )
    options = parser.parse_args(arguments)
    options.instance = options.instance or f"{options.service}-1"
    options.version = options.version or SERVICES[options.service].version
    options.peers = peers(options.service, options.peers)
    return options


def peers(service: str, text: str) -> dict[str, tuple[str, ...]]:
    """Where the services are that `service` calls.

    >>> peers("retriever", "vector-db=http://a:1,http://b:1")
    {'vector-db': ('http://a:1', 'http://b:1')}
    >>> peers("retriever", "")
    {'vector-db': ('http://vector-db:8000',)}
    """
    named = {name: f"http://{name}:{DEFAULT_PORT}" for name in SERVICES[service].calls}
    for pair in filter(None, text.split(";")):
        name, equals, urls = pair.partition("=")
        if not equals or name not in SERVICES:
            raise Misconfigured(f"peers: {pair!r}: service=url[,url…] is needed, services: {', '.join(SERVICES)}")
        named[name] = urls
    return {name: tuple(urls.split(",")) for name, urls in named.items()}


def _instrument(me: Instance) -> None:
    import observe
    from observe.demo.engine_metrics import views

    observe.instrument(
        me.service,
        version=me.version,
        instance_id=me.instance,
        resource={"host.name": me.host},
        excluded_urls=UNSEEN_PATHS,
        schedule_delay_ms=1000,
        metric_interval_ms=5000,
        views=views() if me.service == "llm-engine" else (),
    )


async def serve(me: Instance, options: argparse.Namespace) -> None:
    import httpx
    import uvicorn

    from observe.demo.apps import build
    from observe.demo.node import CALL_TIMEOUT_S, Node

    rng = random.Random(f"{options.seed}/{me.instance}/{me.version}")
    async with httpx.AsyncClient(timeout=CALL_TIMEOUT_S, trust_env=False) as http:
        app = build(Node(me, options.peers, rng, http))
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        await uvicorn.Server(config).serve([_listen(options.listen, options.port)])


def _listen(address: str, port: int) -> socket.socket:
    """A socket that a second process may share: a new release starts before the old one has left."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address, port))
    return listener


if __name__ == "__main__":
    main()
