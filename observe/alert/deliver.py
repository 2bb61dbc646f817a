"""Brings alerts to their receivers, again and again until they have them, each receiver on a thread of its own.

A dead receiver delays neither the others nor the watch loop. What waits is bounded, and the newest version of an
incident takes the place of an older one that is still waiting. Nothing is lost by that: what was not delivered is not
recorded as delivered, so `alerts_due` offers it again, after a restart too.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from observe.alert.decide import Sent, alerts_due
from observe.errors import BadRecord, Unavailable
from observe.interfaces import Notifier
from observe.settings import AlertSettings
from observe.telemetry import NOTIFIED, RETRIES
from observe.types import Alert, Incident, State

log = logging.getLogger(__name__)

V = TypeVar("V")
Delivered = Callable[[str, str, int], None]
"""(incident id, receiver, version), called after each success: Store.save_notified."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits of 1, 2, 4 … s, at most `max_s`, each drawn from its upper half so that senders do not march in step."""

    first_s: float = 1.0
    max_s: float = 300.0

    def wait_s(self, failures: int, chance: float) -> float:
        """`failures` ≥ 1 in a row; `chance` in [0, 1).

        >>> Backoff().wait_s(3, chance=0.0), Backoff().wait_s(30, chance=0.5)
        (2.0, 225.0)
        """
        whole = min(self.max_s, self.first_s * 2.0 ** min(failures - 1, 32))
        return whole * (0.5 + chance / 2)


class Deliverer:
    """All receivers. Neither `tell` nor `submit` ever waits for one."""

    def __init__(
        self,
        notifiers: Sequence[Notifier],
        delivered: Delivered,
        *,
        backoff: Backoff = Backoff(),
        capacity: int = 1000,
    ) -> None:
        self.notifiers = tuple(notifiers)
        self._lanes = {n.name: Lane(n, delivered, backoff, capacity) for n in notifiers}

    def tell(
        self,
        incidents: Sequence[Incident],
        notified: Mapping[tuple[str, str], int],
        now_ns: int,
        settings: AlertSettings,
    ) -> int:
        """Decides what is due and hands it over; how many alerts were taken on.

        `incidents`: the open ones and those resolved lately; `notified`: Store.notified of them.
        """
        for incident in incidents:
            for name, lane in self._lanes.items():
                if incident.state is State.RESOLVED:
                    lane.withdraw(incident)
                elif (incident.id, name) in notified:
                    # After a restart nobody knows when it was told last: its repeat counts from now.
                    lane.remember(incident)
        sent = {(id_, name): entry for name, lane in self._lanes.items() for id_, entry in lane.sent().items()}
        return self.submit(alerts_due(incidents, notified, self.notifiers, now_ns, settings, sent=sent))

    def submit(self, due: Sequence[tuple[str, Alert]]) -> int:
        """Hands (receiver, alert) over; how many were taken on. Those known already, or without room, are not."""
        return sum(self._lanes[receiver].offer(alert) for receiver, alert in due if receiver in self._lanes)

    def waiting(self) -> int:
        """Alerts on their way, over all receivers."""
        return sum(lane.waiting() for lane in self._lanes.values())

    def start(self) -> None:
        for lane in self._lanes.values():
            lane.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stops the threads; what still waits is offered again after the next start."""
        for lane in self._lanes.values():
            lane.stop()
        deadline = time.monotonic() + timeout_s
        for lane in self._lanes.values():
            lane.join(max(0.0, deadline - time.monotonic()))


class Lane:
    """The way to one receiver: at most one waiting alert per incident, one attempt at a time."""

    def __init__(self, notifier: Notifier, delivered: Delivered, backoff: Backoff, capacity: int) -> None:
        self._notifier, self._delivered, self._backoff, self._capacity = notifier, delivered, backoff, capacity
        self._queue: OrderedDict[str, Alert] = OrderedDict()
        self._under_way: Alert | None = None
        self._done: OrderedDict[str, int] = OrderedDict()  # id → newest version delivered or refused for good
        self._sent: OrderedDict[str, Sent] = OrderedDict()
        self._unsaved: dict[str, int] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"alerts-{notifier.name}", daemon=True)

    def offer(self, alert: Alert) -> bool:
        """Takes the alert on, unless it is known already or there is no room."""
        id_ = alert.incident.id
        with self._changed:
            if self._stopping or self._known(alert):
                return False
            if id_ not in self._queue and len(self._queue) >= self._capacity:
                NOTIFIED.labels(self._notifier.name, "no_room").inc()
                return False
            self._queue[id_] = alert
            self._changed.notify_all()
        return True

    def _known(self, alert: Alert) -> bool:
        id_, version = alert.incident.id, alert.incident.version
        flies = self._under_way if self._under_way and self._under_way.incident.id == id_ else None
        if any(other is not None and _news(other) >= _news(alert) for other in (self._queue.get(id_), flies)):
            return True
        done = self._done.get(id_, 0)
        return version < done or (version == done and alert.reason != "repeat")

    def sent(self) -> dict[str, Sent]:
        with self._changed:
            return dict(self._sent)

    def remember(self, incident: Incident) -> None:
        with self._changed:
            if incident.id not in self._sent:
                _put(self._sent, incident.id, Sent(incident.last_seen_ns, incident.severity), self._capacity)

    def withdraw(self, incident: Incident) -> None:
        """Forgets the news that wait while the incident is over: nobody is to be called for what has passed."""
        with self._changed:
            waits = self._queue.get(incident.id)
            if waits is not None and waits.incident.version < incident.version:
                del self._queue[incident.id]

    def waiting(self) -> int:
        with self._changed:
            return len(self._queue) + (self._under_way is not None) + len(self._unsaved)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            alert = self._next()
            wait_s = self._attempt(alert) if alert else None
            failures = failures + 1 if wait_s is not None else 0
            self._save()
            if wait_s is not None:
                self._pause(max(wait_s, self._backoff.wait_s(failures, random.random())))

    def _next(self) -> Alert | None:
        """The alert that waits longest; None when it is time to stop, or to try again to record deliveries."""
        with self._changed:
            while not self._stopping and not self._queue:
                self._changed.wait(self._backoff.first_s if self._unsaved else None)
                if self._unsaved and not self._queue:
                    return None
            if self._stopping:
                return None
            _, self._under_way = self._queue.popitem(last=False)
            return self._under_way

    def _attempt(self, alert: Alert) -> float | None:
        """Tries once; None when that is the end of it, else the seconds that the receiver asks to be left alone."""
        name, incident = self._notifier.name, alert.incident
        try:
            self._notifier.notify(alert)
        except Unavailable as error:
            RETRIES.labels("receiver").inc()
            log.warning("alert %s version %d waits: %s", incident.id, incident.version, error)
            self._back(alert)
            return error.retry_after_s
        except BadRecord as error:
            NOTIFIED.labels(name, "refused").inc()
            log.error("alert %s version %d is refused: %s", incident.id, incident.version, error)
            self._finish(alert, delivered=False)
        except Exception:
            NOTIFIED.labels(name, "failed").inc()
            log.exception("alert %s version %d: %s failed", incident.id, incident.version, name)
            self._finish(alert, delivered=False)
        else:
            NOTIFIED.labels(name, "delivered").inc()
            self._finish(alert, delivered=True)
        return None

    def _back(self, alert: Alert) -> None:
        """At the end of the line, so that one alert that fails does not block the others; not if a newer one waits."""
        with self._changed:
            self._under_way = None
            self._queue.setdefault(alert.incident.id, alert)

    def _finish(self, alert: Alert, *, delivered: bool) -> None:
        incident = alert.incident
        with self._changed:
            self._under_way = None
            _put(self._done, incident.id, incident.version, self._capacity)
            _put(self._sent, incident.id, Sent(incident.last_seen_ns, incident.severity), self._capacity)
            if delivered:
                self._unsaved[incident.id] = incident.version

    def _save(self) -> None:
        """Records what was delivered, or leaves it for later where the store is away."""
        with self._changed:
            unsaved = dict(self._unsaved)
        for id_, version in unsaved.items():
            try:
                self._delivered(id_, self._notifier.name, version)
            except Unavailable as error:
                log.warning("delivery of %s cannot be recorded yet: %s", id_, error)
                return
            with self._changed:
                if self._unsaved.get(id_) == version:
                    del self._unsaved[id_]

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._stopping and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)


def _news(alert: Alert) -> tuple[int, bool]:
    """What makes one alert about an incident newer than another."""
    return alert.incident.version, alert.reason == "repeat"


def _put(memory: OrderedDict[str, V], key: str, value: V, capacity: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > 4 * capacity:
        memory.popitem(last=False)
