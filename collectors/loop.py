"""The loop of everything that is read at an interval."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from observe.errors import Misconfigured, ObserveError
from observe.telemetry import RETRIES

log = logging.getLogger(__name__)

MAX_BACKOFF_S: Final = 60.0


def run_every(interval_s: float, stop: threading.Event, work: Callable[[int], None], name: str) -> None:
    """Calls `work(now_ns)` once per interval until `stop` is set. An error doubles the wait, up to a minute; the first
    of a row goes to the log, the others only to our own metrics. Raises nothing but Misconfigured."""
    failures = 0
    wait_s = 0.0
    while not stop.wait(wait_s):
        began = time.monotonic()
        try:
            work(time.time_ns())
        except Misconfigured:
            raise
        except Exception as error:
            failures += 1
            wait_s = backoff_s(interval_s, failures)
            RETRIES.labels(f"collect {name}").inc()
            if failures == 1:
                log.warning("%s: %s", name, error, exc_info=not isinstance(error, ObserveError))
        else:
            if failures:
                log.info("%s: works again", name)
            failures = 0
            wait_s = max(interval_s - (time.monotonic() - began), 0.0)


def backoff_s(interval_s: float, failures: int) -> float:
    """How long to wait after so many failures in a row: never less than the interval.

    >>> [backoff_s(10.0, n) for n in (1, 2, 3, 4)]
    [10.0, 20.0, 40.0, 60.0]
    """
    return max(interval_s, min(interval_s * 2.0 ** min(failures - 1, 16), MAX_BACKOFF_S))
