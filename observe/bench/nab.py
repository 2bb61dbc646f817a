"""NAB's score of detections on one labelled series, standard profile.

Written from the description in Lavin & Ahmad 2015 (doi:10.1109/ICMLA.2015.141) and the scoring notes that go with the
public results, and compared with the public scorer line by line: a window is worth up to one point for its first
detection, the earlier the more, and costs one where it is missed; every detection outside costs up to 0.11, less where
it closely follows a window. A window that ends in the probation counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.detect.statistics import Bools, Floats

FALSE_ALARM = 0.11  # cost of a detection outside all windows
MISSED = 1.0  # cost of a window without a detection
PROBATION = 0.15  # of a series, in which nothing counts
PROBATION_POINTS = 750  # at most
FORGOTTEN = 3.0  # lengths of a window after which a detection has nothing to do with it


@dataclass(frozen=True, slots=True)
class Score:
    """Of one series, or the sum over many."""

    points: float = 0.0
    windows: int = 0
    found: int = 0
    false_alarms: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.points + other.points,
            self.windows + other.windows,
            self.found + other.found,
            self.false_alarms + other.false_alarms,
        )

    @property
    def normalised(self) -> float | None:
        """0 for a detector that says nothing, 100 for one that finds every window at its start and says nothing else.
        None where there is no window to find."""
        if not self.windows:
            return None
        return 100.0 * (self.points + MISSED * self.windows) / ((1.0 + MISSED) * self.windows)


def probation(points: int) -> int:
    """How many points at the start are not scored.

    >>> probation(4032), probation(16000)
    (604, 750)
    """
    return min(int(PROBATION * points), PROBATION_POINTS)


def score(detected: Bools, time_s: Floats, windows_s: Sequence[tuple[float, float]]) -> Score:
    """Points of one series; `detected` [point], windows are inclusive at both ends.

    >>> time_s = np.arange(100.0)
    >>> round(score(time_s == 50, time_s, [(50, 59)]).points, 3)
    1.0
    >>> score(time_s == 20, time_s, [(50, 59)]).points
    -1.11
    """
    first = np.arange(len(time_s)) >= probation(len(time_s))
    spans = [(np.searchsorted(time_s, a), np.searchsorted(time_s, b, "right")) for a, b in sorted(windows_s)]
    total, outside = Score(), detected & first
    for start, end in spans:
        outside[start:end] = False
        if 0 < end <= probation(len(time_s)):
            continue  # nobody could have told of it
        at = np.flatnonzero(detected[start:end] & first[start:end])
        gained = _in_window(float(at[0]), int(end - start)) if len(at) else -MISSED
        total += Score(gained, 1, int(len(at) > 0))
    alarms = np.flatnonzero(outside)
    return total + Score(FALSE_ALARM * float(_outside(alarms, spans).sum()), false_alarms=len(alarms))


def _in_window(at: float, length: int) -> float:
    """1 at the start of a window, near 0 at its end."""
    start, here = _sigmoid(np.array([-1.0, (at - length) / length]))
    return float(here / start)


def _outside(alarms: NDArray[np.intp], spans: Sequence[tuple[np.intp, np.intp]]) -> Floats:
    """Between 0, right behind a window, and −1, far behind or before any; [alarm]."""
    if not spans:
        return np.full(len(alarms), -1.0)
    start, end = np.array(spans).T
    before = np.searchsorted(end, alarms, "right") - 1
    length = np.maximum(end - start - 1, 1)[before]
    behind = (alarms - (end[before] - 1)) / length
    return np.where(before < 0, -1.0, _sigmoid(behind))


def _sigmoid(position: Floats) -> Floats:
    """From 1 well before the end of a window through 0 at its end to −1 well behind; positions in lengths of it."""
    return np.where(position >= FORGOTTEN, -1.0, 2.0 / (1.0 + np.exp(np.minimum(5.0 * position, 50.0))) - 1.0)
