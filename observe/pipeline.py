"""The order of work, and nothing else: store to incidents (`watch`, `replay`). Stream to store is `observe.ingest`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from observe.asking import Answers, Asking, Pasts
from observe.detect.grid import span_of
from observe.detect.memory import Memory
from observe.detect.slo import reach_ns, services
from observe.errors import Unavailable
from observe.frames import Frames
from observe.interfaces import Store
from observe.looks import Look, pack, shortened, worth_keeping
from observe.revise import Looks, Published
from observe.settings import Settings
from observe.telemetry import INCIDENTS, RETRIES, REVISED, TICK_SECONDS
from observe.types import WINDOW_NS, Incident, Severity, State
from observe.verdict import NOTHING, Asked, Unjoined, again, horizon_ns, look, next_look_ns
from observe.watermark import Watermark

log = logging.getLogger(__name__)

POLL_NS = 10**9
PROGRESS_NS = 120 * 10**9
"""How often sources are asked for while a window ripens, and over how much of the past."""

SETTLE_NS = 60 * 10**9
"""How often windows are settled while nothing is wrong: each settling reads the spans of more than a minute around."""

REPLAY_CHUNK_NS = 3600 * 10**9
"""Replay reads this much at a time, so that a replay of days needs no more memory than one of an hour."""


def watch(
    store: Store,
    tell: Callable[[Sequence[Incident], int], None],
    settings: Settings,
    *,
    clock: Callable[[], int],
    wait_until: Callable[[int], bool],
) -> None:
    """Looks at every window once its data are there, until `wait_until(time_ns)` returns False.

    What comes later than that makes the looks at its windows again, so that in the end all looks have said what a
    replay says. A look that found the store away is made when it is back.
    """
    watcher = Watcher(store, tell, settings)
    watermark = Watermark(settings.detect)
    oldest_ns = int(settings.detect.lateness_s * 10**9) + WINDOW_NS
    at_ns = next_look_ns(clock(), settings)
    while _ripe(store, watermark, at_ns, settings, clock, wait_until):
        while True:
            try:
                watcher.look_at(at_ns)
                break
            except Unavailable as error:
                RETRIES.labels("watch").inc()
                log.warning("the store is away, trying again: %s", error)
                if not wait_until(clock() + int(max(1.0, error.retry_after_s) * 10**9)):
                    return
        at_ns = next_look_ns(max(at_ns, clock() - oldest_ns), settings)


def _ripe(
    store: Store,
    watermark: Watermark,
    at_ns: int,
    settings: Settings,
    clock: Callable[[], int],
    wait_until: Callable[[int], bool],
) -> bool:
    """Waits until every source has come past the windows of the look at `at_ns`; False where it is to stop."""
    end_ns = span_of(at_ns, settings.detect).end_ns
    now_ns = end_ns + POLL_NS
    while wait_until(now_ns):
        now_ns = max(now_ns, clock())  # behind time nothing is left to wait for
        with contextlib.suppress(Unavailable):
            watermark.saw(store.progress(end_ns - PROGRESS_NS), now_ns)
        if watermark.passed(end_ns, now_ns):
            return True
        now_ns += POLL_NS
    return False


class Watcher:
    """The incidents known so far, and how each look changes them."""

    def __init__(self, store: Store, tell: Callable[[Sequence[Incident], int], None], settings: Settings) -> None:
        self._store, self._tell, self._settings = store, tell, settings
        self._asking = Asking(store)
        self._looks = Looks(settings.detect)
        self._memory = Memory(settings.detect)
        self._known: dict[str, Incident] | None = None
        self._published = Published()
        self._settled_ns = 0

    def look_at(self, at_ns: int) -> None:
        """Incidents are saved before anybody is told: a crash in between tells late, never of what is not stored."""
        settings, store = self._settings, self._store
        if self._known is None:
            self._known = _restored(store, at_ns, settings)
            self._published = Published(self._known.values())
        busy = self._looks.busy(at_ns) or any(i.state is not State.RESOLVED for i in self._known.values())
        if busy or at_ns >= self._settled_ns + SETTLE_NS:
            with TICK_SECONDS.labels("settle").time():
                store.settle(at_ns)
            self._settled_ns = at_ns
        try:
            given, saved, found = self._read_and_look(at_ns, joined=busy)
        except Unjoined:
            given, saved, found = self._read_and_look(at_ns, joined=True)
        changed = self._published.of(found)
        if saved or changed:
            store.save_incidents([*saved, *changed])
        self._published.forget(at_ns - horizon_ns(settings))
        self._tell(self._published.told(), at_ns)
        try:
            _keep(store, given, found)  # as the look left them: versions that revisions raised are not its own
        except Exception:  # whatever it is: an audit that cannot be kept must not end the watch
            log.warning("the inputs of a diagnosis are not kept", exc_info=True)
        for state in (State.PENDING, State.FIRING):
            INCIDENTS.labels(state.value).set(sum(i.state is state for i in self._known.values()))

    def _read_and_look(self, at_ns: int, *, joined: bool) -> tuple[Look, list[Incident], list[Incident]]:
        """What the look was given, what looks that were made again changed, and what this one changed.

        Raises Unjoined where something is to be explained, or to be looked at again; nothing is changed then.
        """
        late_ns = int(self._settings.detect.lateness_s * 10**9)
        with TICK_SECONDS.labels("frames").time():
            from_ns = at_ns - horizon_ns(self._settings) - late_ns
            frames = picture(self._store, from_ns, at_ns, self._settings, joins=joined)
        with TICK_SECONDS.labels("look").time():
            if not joined and self._looks.since(frames, at_ns):
                raise Unjoined
            saved = self._again(frames, at_ns)
            given, found = self._look(frames, at_ns, joined=joined)
        return given, saved, found

    def _again(self, frames: Frames, at_ns: int) -> list[Incident]:
        """Makes the looks again that something came late for; the incidents that are to be saved for it."""
        again = self._looks.since(frames, at_ns)
        if not again:
            return []
        REVISED.inc(len(again))
        log.info("data came late: the looks since %d are made again", again[0][0])
        self._known = again[0][1]
        self._asking = Asking(self._store)  # what was answered without the late data does not hold
        for then_ns, _ in again:
            self._look(frames, then_ns, joined=True)
        return self._published.revised(self._known, again[0][0], at_ns)

    def _look(self, frames: Frames, at_ns: int, *, joined: bool) -> tuple[Look, list[Incident]]:
        """One look, with the windows that it may read."""
        known = self._known or {}
        seen = frames.between(at_ns - horizon_ns(self._settings), at_ns)
        answers, pasts = Answers(), Pasts()
        given = Look(at_ns, tuple(known.values()), seen, self._settings, answers, pasts)
        asked = replace(asked_of(self._asking, self._settings, answers, pasts), joined=joined)
        changed = look(seen, given.known, at_ns, self._settings, asked, self._memory)
        self._looks.keep(frames.between(0, at_ns), at_ns, known, busy=bool(changed))
        self._known = _remembered(known, changed, at_ns, self._settings)
        return given, changed


def asked_of(asking: Asking, settings: Settings, answers: Answers | None = None, pasts: Pasts | None = None) -> Asked:
    """What looks may ask of a store with these settings; answers are noted in the last two."""
    attributes = asking({} if answers is None else answers) if settings.diagnose.attributes else None
    return Asked(attributes, asking.past({} if pasts is None else pasts))


def picture(store: Store, from_ns: int, to_ns: int, settings: Settings, *, joins: bool = True) -> Frames:
    """What a look reads of [from_ns, to_ns): windows, and blocks from further back where objectives need them."""
    frames = store.frames(from_ns, to_ns, joins=joins)
    promised = services(settings.slo)
    if not promised:
        return frames
    return replace(frames, blocks=store.blocks(promised, from_ns - reach_ns(settings.slo), to_ns))


def replay(
    read: Callable[[int, int], Frames],
    from_ns: int,
    to_ns: int,
    settings: Settings,
    *,
    progress: Callable[[float], None] = lambda share: None,
    asked: Asked = NOTHING,
) -> list[Incident]:
    """The incidents that would have fired on the windows in [from_ns, to_ns), worst first.

    The windows' own time is the clock; windows before `from_ns` serve as baseline. Nothing is written, nobody is told.
    """
    known: dict[str, Incident] = {}
    told: dict[str, Incident] = {}
    end_ns = to_ns + int(settings.detect.settle_s * 10**9)
    for chunk_ns in range(from_ns, to_ns, REPLAY_CHUNK_NS):
        last = chunk_ns + REPLAY_CHUNK_NS >= to_ns
        chunk_end_ns = end_ns if last else chunk_ns + REPLAY_CHUNK_NS
        frames = read(chunk_ns - horizon_ns(settings), min(chunk_end_ns, to_ns))
        for at_ns in _looks(chunk_ns, chunk_end_ns, settings):
            seen = frames.between(at_ns - horizon_ns(settings), at_ns)
            changed = look(seen, list(known.values()), at_ns, settings, asked)
            known = _remembered(known, changed, at_ns, settings)
            told |= {i.id: i for i in changed if i.fired_ns is not None}
            for gone in {i.id for i in changed if i.fired_ns is None}:
                told.pop(gone, None)
            progress((at_ns - from_ns) / max(1, end_ns - from_ns))
    return worst_first(told.values())


def worst_first(incidents: Iterable[Incident]) -> list[Incident]:
    """Open before resolved, then by severity, then by onset."""
    severities, states = list(Severity), [State.FIRING, State.PENDING, State.RESOLVED]
    return sorted(incidents, key=lambda i: (states.index(i.state), severities.index(i.severity), i.onset_ns, i.id))


def _looks(from_ns: int, to_ns: int, settings: Settings) -> Iterable[int]:
    at_ns = from_ns
    while (at_ns := next_look_ns(at_ns, settings)) <= to_ns:
        yield at_ns


def _restored(store: Store, now_ns: int, settings: Settings) -> dict[str, Incident]:
    """After a restart: open incidents go on, and past ones still keep the baseline clean."""
    recent = store.incidents(from_ns=now_ns - horizon_ns(settings))
    return {incident.id: incident for incident in recent}


def _remembered(
    known: dict[str, Incident], changed: Sequence[Incident], now_ns: int, settings: Settings
) -> dict[str, Incident]:
    oldest_ns = now_ns - horizon_ns(settings)
    merged = known | {incident.id: incident for incident in changed}
    return {key: i for key, i in merged.items() if i.resolved_ns is None or i.resolved_ns >= oldest_ns}


def _keep(store: Store, given: Look, changed: Sequence[Incident]) -> None:
    """Keeps what the look was given, where it is worth it; after all were told, as audits can wait."""
    before = {i.id: i for i in given.known}
    kept = [i for i in changed if worth_keeping(before.get(i.id), i)]
    most = given.settings.diagnose.keep_inputs_mb * 2**20
    if not kept or most <= 0:
        return
    inputs = pack(given)
    if len(inputs) > most:
        inputs = _shorter(given, changed)
    if len(inputs) > most:
        log.warning("inputs of a diagnosis are not kept: %.1f MB, diagnose.keep_inputs_mb is less", len(inputs) / 2**20)
        return
    store.save_look(given.at_ns, inputs, kept)


def _shorter(given: Look, changed: Sequence[Incident]) -> bytes:
    """The inputs without what the diagnosis does not compare, if that gives the very same incidents; else all."""
    onsets = [s.onset_ns for incident in changed for s in incident.symptoms]
    short = shortened(given, min(onsets, default=given.at_ns))
    return pack(short if again(short) == list(changed) else given)
