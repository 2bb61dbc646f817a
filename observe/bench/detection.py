"""Walks detection over simulated frames look by look, the way watching does, and counts what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from observe.bench.series import START_NS, now_ns
from observe.detect import detect
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift

KEEP_FIRING_NS = 60 * 10**9


@dataclass(slots=True)
class Episode:
    """Consecutive shifts of one service, as an incident would hold them."""

    service: str
    first: Shift
    seen_ns: list[int] = field(default_factory=list)  # ends of the newest windows at which it was seen

    def delay_s(self, onset_ns: int, for_s: float = 0.0) -> float:
        """Event time from the onset until it was seen for `for_s`; infinite where that never happened."""
        fired = [at for at in self.seen_ns if at - self.seen_ns[0] >= for_s * 1e9]
        return (fired[0] - onset_ns) / 1e9 if fired else float("inf")

    def onset_error_s(self, onset_ns: int) -> float:
        return (self.first.onset_ns - onset_ns) / 1e9


def walk(frames: Frames, looks: Sequence[int], settings: DetectSettings) -> list[Episode]:
    """Episodes over the looks; `looks` are counts of settled windows. What is abnormal stays out of the baseline."""
    open_: dict[str, Episode] = {}
    closed: list[Episode] = []
    reach_ns = int((settings.baseline_s + settings.current_s + settings.settle_s) * 1e9) + WINDOW_NS
    for look in looks:
        at_ns, end_ns = now_ns(look, settings.settle_s), START_NS + look * WINDOW_NS
        abnormal = [Interval(e.first.onset_ns, at_ns, e.service) for e in open_.values()]
        abnormal += [
            Interval(e.first.onset_ns, e.seen_ns[-1], e.service) for e in closed if e.seen_ns[-1] > end_ns - reach_ns
        ]
        for shift in detect(frames.between(at_ns - reach_ns, at_ns), at_ns, settings, abnormal):
            episode = open_.setdefault(shift.service, Episode(shift.service, shift))
            if not episode.seen_ns or episode.seen_ns[-1] < end_ns:
                episode.seen_ns.append(end_ns)
        over = [service for service, e in open_.items() if end_ns - e.seen_ns[-1] > KEEP_FIRING_NS]
        closed += [open_.pop(service) for service in over]
    return sorted([*closed, *open_.values()], key=lambda e: (e.seen_ns[0], e.service))
