"""One look at the windows: detect, diagnose, decide. Pure, so that live watching and replay cannot differ."""

from __future__ import annotations

from collections.abc import Sequence

from observe.alert import abnormal, step
from observe.detect import detect, gauge_shifts
from observe.detect.rules import evaluate
from observe.diagnose import diagnose
from observe.diagnose.attributes import Ask, with_attributes
from observe.frames import Frames
from observe.looks import Look
from observe.settings import Settings
from observe.types import WINDOW_NS, Diagnosis, Incident

SECOND_NS = 1_000_000_000


def look(
    frames: Frames, known: Sequence[Incident], now_ns: int, settings: Settings, ask: Ask | None = None
) -> list[Incident]:
    """The incidents that changed, in their new state, given the incidents `known` so far.

    `frames` reach back at least `horizon_ns(settings)` from `now_ns`, where there is that much history. `ask` counts
    the attributes of requests, and gives the same for the same question; without it causes are narrowed by what frames
    hold alone.
    """
    found = diagnoses(frames, known, now_ns, settings, ask)
    return step(known, found, now_ns, settings.alert, settings.detect.rules)


def again(given: Look) -> list[Incident]:
    """The look once more, on what it was given."""
    return look(given.frames, given.known, given.at_ns, given.settings, given.answer)


def diagnoses(
    frames: Frames, known: Sequence[Incident], now_ns: int, settings: Settings, ask: Ask | None = None
) -> list[Diagnosis]:
    """What is wrong at `now_ns`, and why."""
    excluded = abnormal(known, now_ns, new_normal_s=settings.detect.new_normal_s)
    shifts = [
        *detect(frames, now_ns, settings.detect, excluded),
        *evaluate(frames, now_ns, settings.detect),
    ]
    if not shifts:
        return []
    context = gauge_shifts(frames, now_ns, settings.detect, excluded)
    found = diagnose(shifts, frames, now_ns, settings.diagnose, context)
    return found if ask is None else with_attributes(found, frames, now_ns, ask)


def horizon_ns(settings: Settings) -> int:
    """How far back a look reaches."""
    detect_settings = settings.detect
    reach_s = detect_settings.baseline_s + detect_settings.current_s + detect_settings.settle_s
    return int(reach_s * SECOND_NS) + WINDOW_NS


def next_look_ns(after_ns: int, settings: Settings) -> int:
    """The first moment after `after_ns` at which a window has just settled."""
    phase = int(settings.detect.settle_s * SECOND_NS) % WINDOW_NS
    return (after_ns - phase) // WINDOW_NS * WINDOW_NS + WINDOW_NS + phase
