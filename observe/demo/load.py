"""Users: python -m observe.demo.load --url http://127.0.0.1:8000. Not instrumented, as users are not."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Sequence

import httpx

from observe.demo.loop import run
from observe.demo.noise import arrivals

QUESTIONS = ("where is my order", "compare the two plans", "what changed in the contract", "summarize the thread")
PATIENCE_S = 60.0
MAX_OPEN = 400
"""Requests under way at most: beyond this, new users turn away, so that an outage does not pile up memory."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m observe.demo.load", description=__doc__)
    parser.add_argument("--url", default=os.environ.get("DEMO_URL", "http://gateway:8000"))
    parser.add_argument("--rate", type=float, default=os.environ.get("DEMO_RATE", "8"), help="mean requests/s")
    parser.add_argument("--seed", default=os.environ.get("DEMO_SEED", "1"))
    options = parser.parse_args(arguments)
    run(drive(options.url, options.rate, random.Random(f"{options.seed}/load")))


async def drive(url: str, rate_per_s: float, rng: random.Random) -> None:
    """Sends requests for ever, each at its time, whether or not earlier ones have been answered."""
    limits = httpx.Limits(max_connections=MAX_OPEN, max_keepalive_connections=50)
    under_way: set[asyncio.Task[None]] = set()
    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits, trust_env=False) as http:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for at_s in arrivals(rate_per_s, rng):
            await asyncio.sleep(max(start_s + at_s - loop.time(), 0))
            if len(under_way) < MAX_OPEN:
                task = asyncio.create_task(ask(http, url, rng.choice(QUESTIONS)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)


async def ask(http: httpx.AsyncClient, url: str, question: str) -> None:
    """One user. Where the service is away, the user gives up: that is what users do."""
    try:
        await http.post(f"{url}/v1/chat", json={"question": question})
    except httpx.TransportError:
        return


if __name__ == "__main__":
    main()
