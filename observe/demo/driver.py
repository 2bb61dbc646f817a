"""`observe demo`: starts observe and the fleet, puts a fault in, and says whether observe found it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from observe.client import Client
from observe.demo.children import Child, free_ports, spawn, stop
from observe.demo.faults import FAULTS
from observe.demo.fleet import Fleet
from observe.demo.judge import Judge, Patience, Result
from observe.demo.narrator import Narrator
from observe.errors import Misconfigured, Unavailable

UP_S = 60.0
WARM_UP_S = 104.0
"""Longer than detect.min_baseline_s and the window that has begun: the baseline must exist."""

ANSWER_S = 212.0
"""Headless, the answer is due this long after the start; stopping takes up to 25 s more on a busy machine."""

DASHBOARD = "http://127.0.0.1:8501"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the observe of this demo listens. Ports None: the default ones."""

    otlp_url: str = "http://127.0.0.1:4318"
    api_url: str = "http://127.0.0.1:8080"
    ports: tuple[int, ...] | None = None  # gRPC, HTTP, API


def run_demo(
    fault: str = "gpu-throttle",
    *,
    headless: bool = False,
    json_output: bool = False,
    stream_url: str | None = None,
    store_url: str | None = None,
    api_url: str | None = None,
    otlp_url: str | None = None,
    warm_up_s: float = WARM_UP_S,
    rate_per_s: float = 8.0,
    seed: str | None = None,
) -> int:
    """0 if the first cause that observe names is the injected one (for `none`: if it opens no incident), else 1.

    Starts an observe of its own, unless `api_url` and `otlp_url` name one that runs. Headless it ends by itself
    within four minutes; otherwise it leaves the dashboard open until Ctrl-C. With `json_output` the result is one
    JSON object on stdout, and everything else goes to stderr. Raises Misconfigured and Unavailable.
    """
    if fault not in FAULTS:
        raise Misconfigured(f"fault {fault!r}: one of {', '.join(FAULTS)} is needed")
    if (api_url is None) != (otlp_url is None):
        raise Misconfigured("api_url and otlp_url belong together: both, or neither")
    begun_ns = time.time_ns()
    narrator = Narrator(sys.stderr if json_output else sys.stdout)
    folder = Path(tempfile.mkdtemp(prefix="observe-demo-"))
    place = Place(otlp_url, api_url) if otlp_url and api_url else _place(headless)
    result: Result | None = None
    try:
        with _signals_end_us(), _observe(place, folder, api_url, headless, stream_url, store_url) as up:
            fleet = Fleet(place.otlp_url, folder, rate_per_s=rate_per_s, seed=seed or str(time.time_ns()))
            with fleet, Client(place.api_url, timeout_s=10) as client:
                _wait_until_up(client, up)
                alive = _watchman(fleet, up)
                deadline_ns = begun_ns + int(ANSWER_S * 1e9) if headless else None
                judge = Judge(fault, FAULTS[fault], Patience(), time.time_ns(), deadline_ns)
                result = _experiment(judge, fleet, client, narrator, warm_up_s, alive)
                narrator.verdict(result)
                if not headless:
                    _stay(client, narrator, alive)
    except KeyboardInterrupt:
        narrator.say("stopping")
    finally:
        _tidy(folder, narrator, keep=result is None or not result.ok)
    if json_output and result is not None:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        sys.stdout.flush()
    return 0 if result is not None and result.ok else 1


def _experiment(
    judge: Judge, fleet: Fleet, client: Client, narrator: Narrator, warm_up_s: float, alive: Callable[[], None]
) -> Result:
    narrator.say(f"the fleet is up: {len(fleet.pids) - 1} processes and their users")
    _warm_up(client, judge, narrator, warm_up_s, alive)
    narrator.say(f"FAULT: {judge.fault.says}")
    judge.injected(time.time_ns())
    fleet.inject(judge.fault)
    while not judge.done(time.time_ns()):
        alive()
        narrator.look(judge.see(client.incidents(from_ns=judge.begun_ns)))
        time.sleep(1)
    return judge.result(time.time_ns())


def _warm_up(client: Client, judge: Judge, narrator: Narrator, seconds: float, alive: Callable[[], None]) -> None:
    start_s = time.monotonic()
    told_s = 0.0
    while (passed_s := time.monotonic() - start_s) < seconds:
        if passed_s >= told_s:
            narrator.say(f"observe learns what is normal: {seconds - passed_s:.0f} s left")
            told_s += 20
        alive()
        narrator.look(judge.see(client.incidents(from_ns=judge.begun_ns)))
        time.sleep(min(2.0, max(seconds - passed_s, 0.01)))


def _stay(client: Client, narrator: Narrator, alive: Callable[[], None]) -> None:
    narrator.say(f"the dashboard is at {DASHBOARD}; Ctrl-C ends everything")
    since_ns = time.time_ns()
    while True:
        alive()
        narrator.look(client.incidents(from_ns=since_ns))
        time.sleep(2)


def _place(headless: bool) -> Place:
    if not headless:
        return Place()
    ports = tuple(free_ports(3))
    return Place(f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[2]}", ports)


@contextmanager
def _observe(
    place: Place, folder: Path, api_url: str | None, headless: bool, stream_url: str | None, store_url: str | None
) -> Iterator[Child | None]:
    """`observe up` in a process of its own, as a user starts it; None where one runs already."""
    if api_url is not None:
        yield None
        return
    options = ["up", "--data", str(folder / "data")]
    if place.ports:
        names = ("--otlp-grpc", "--otlp-http", "--api")
        options += [text for pair in zip(names, place.ports, strict=True) for text in (pair[0], f"127.0.0.1:{pair[1]}")]
    options += ["--no-dashboard"] if headless else []
    options += ["--stream", stream_url] if stream_url else []
    options += ["--store", store_url] if store_url else []
    up = spawn("observe", "observe", *options, folder=folder)
    try:
        yield up
    finally:
        stop([up])


def _wait_until_up(client: Client, up: Child | None) -> None:
    deadline_s = time.monotonic() + UP_S
    while True:
        try:
            client.health()
        except Unavailable as error:
            if up and not up.alive:
                raise Unavailable(f"observe up has ended:\n{up.last_words()}") from error
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.3)
        else:
            return


def _watchman(fleet: Fleet, up: Child | None) -> Callable[[], None]:
    def alive() -> None:
        """Raises Unavailable where a process has ended that nobody asked to."""
        for child in (*fleet.dead, *([up] if up and not up.alive else [])):
            raise Unavailable(f"{child.name} has ended:\n{child.last_words()}")

    return alive


@contextmanager
def _signals_end_us() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does, so that the children are stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tidy(folder: Path, narrator: Narrator, *, keep: bool) -> None:
    if keep:
        narrator.say(f"logs and data are kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
