"""One look at the windows: detect, diagnose, decide. Pure, so that live watching and replay cannot differ."""

from __future__ import annotations

from collections.abc import Sequence

from observe.alert import abnormal, step
from observe.detect import detect, gauge_shifts
from observe.detect.rules import evaluate
from observe.diagnose import diagnose
from observe.frames import Frames
from observe.settings import Settings
from observe.types import WINDOW_NS, Diagnosis, Incident

SECOND_NS = 1_000_000_000


def look(frames: Frames, known: Sequence[Incident], now_ns: int, settings: Settings) -> list[Incident]:
    """The incidents that changed, in their new state, given the incidents `known` so far.

    `frames` reach back at least `horizon_ns(settings)` from `now_ns`, where there is that much history.
    """
    return step(known, diagnoses(frames, known, now_ns, settings), now_ns, settings.alert, settings.detect.rules)


def diagnoses(frames: Frames, known: Sequence[Incident], now_ns: int, settings: Settings) -> list[Diagnosis]:
    """What is wrong at `now_ns`, and why."""
    excluded = abnormal(known, now_ns, new_normal_s=settings.detect.new_normal_s)
    shifts = [
        *detect(frames, now_ns, settings.detect, excluded),
        *evaluate(frames, now_ns, settings.detect),
    ]
    if not shifts:
        return []
    context = gauge_shifts(frames, now_ns, settings.detect, excluded)
    return diagnose(shifts, frames, now_ns, settings.diagnose, context)


def horizon_ns(settings: Settings) -> int:
    """How far back a look reaches."""
    detect_settings = settings.detect
    reach_s = detect_settings.baseline_s + detect_settings.current_s + detect_settings.settle_s
    return int(reach_s * SECOND_NS) + WINDOW_NS


def next_look_ns(after_ns: int, settings: Settings) -> int:
    """The first moment after `after_ns` at which a window has just settled."""
    phase = int(settings.detect.settle_s * SECOND_NS) % WINDOW_NS
    return (after_ns - phase) // WINDOW_NS * WINDOW_NS + WINDOW_NS + phase
