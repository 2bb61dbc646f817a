"""observe's own metrics, every name in one place; served at /metrics in the Prometheus text form."""

from __future__ import annotations

import ctypes
import sys
import threading
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

RECEIVED = Counter("observe_received_items", "Spans, points and log records validated", ["signal"], registry=REGISTRY)
REFUSED = Counter("observe_refused_requests", "Requests not accepted", ["signal", "reason"], registry=REGISTRY)
WRITTEN = Counter("observe_written_items", "Items handed to the store", ["signal"], registry=REGISTRY)
INSERT_SECONDS = Histogram("observe_insert_seconds", "Duration of one insert", ["signal"], registry=REGISTRY)
REPEATED = Counter(
    "observe_repeated_items", "Items that came again and were stored once", ["signal"], registry=REGISTRY
)
DEAD_LETTERED = Counter("observe_dead_letters", "Records put aside", ["signal"], registry=REGISTRY)
RETRIES = Counter("observe_retries", "Waits for a part that was not available", ["part"], registry=REGISTRY)
TICK_SECONDS = Histogram("observe_tick_seconds", "Duration of one look at the windows", ["step"], registry=REGISTRY)
INCIDENTS = Gauge("observe_incidents", "Open incidents", ["state"], registry=REGISTRY)
REVISED = Counter("observe_revised_looks", "Looks made again as data came late", registry=REGISTRY)
SLO_BURN = Gauge("observe_slo_burn_rate", "Of the error budget", ["objective", "over"], registry=REGISTRY)
SLO_BUDGET = Gauge("observe_slo_budget_remaining_ratio", "Error budget left", ["objective"], registry=REGISTRY)
NOTIFIED = Counter("observe_notifications", "Deliveries to receivers", ["receiver", "outcome"], registry=REGISTRY)

_PR_SET_NAME = 15  # prctl(2)


def show_thread_name() -> None:
    """Lets the system know this thread by the name that Python gave it: `top -H` then tells which part is busy.

    Python itself does so from 3.14 on. Linux keeps 15 bytes of a name; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NAME, threading.current_thread().name.encode()[:15], 0, 0, 0)
