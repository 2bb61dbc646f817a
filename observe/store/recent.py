"""Windows that were read before, kept in memory for as long as a cheap count says that they are still the same.

Looks follow each other by seconds and each wants the whole hour. Rows are only ever added, so sums over the rows of a
window change with every row that comes: equal sums, same window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np
import polars as pl

Mark: TypeAlias = tuple[object, ...] | None
"""What changes with a window's rows; None where nothing tells, so that they are read each time."""

Marks: TypeAlias = Mapping[int, Mark]
"""By the start of the window in seconds."""

MAX_BYTES: Final = 1 << 30
"""Larger pictures are not kept."""

IDLE_S: Final = 60
"""What no read has renewed for so long gives way to any other range."""

GAP_S: Final = 60
"""Changed windows this close to each other are read in one go, with what lies between."""

MAX_RUNS: Final = 6
"""With more places that have changed, all from the first to the last is read at once."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows sorted by window, and the marks of their windows."""

    frame: pl.DataFrame
    marks: Marks

    def at(self, marks: Marks, read: Callable[[Sequence[int]], pl.DataFrame]) -> Table:
        """The table with these marks: windows whose mark is another one come from `read`, which takes their starts in
        ascending order and answers with their rows, sorted as this table's are."""
        same = {s for s, mark in marks.items() if mark is not None and self.marks.get(s) == mark}
        if len(same) == len(marks) == len(self.marks):
            return self
        changed = sorted(s for s in marks if s not in same)
        new = read(changed) if changed else self.frame.clear()
        return Table(_woven(self.frame, new, marks, self.marks, same), marks)


class Recent:
    """The newest range that was read, one for all threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._span = (0, 0)
        self._renewed_s = 0.0
        self._tables: Mapping[str, Table] = {}

    def tables(self) -> Mapping[str, Table]:
        """By name; empty where nothing is kept."""
        with self._lock:
            return self._tables

    def keep(self, from_s: int, to_s: int, tables: Mapping[str, Table]) -> None:
        """Keeps what was read of [from, to), unless it is worth less than what is kept: ranges that end earlier or
        are less than half as long are questions beside the looks."""
        size = sum(table.frame.estimated_size() for table in tables.values())
        now_s = time.monotonic()
        with self._lock:
            first_s, last_s = self._span
            beside = to_s < last_s or 2 * (to_s - from_s) < last_s - first_s
            if beside and now_s - self._renewed_s < IDLE_S:
                return
            self._renewed_s = now_s
            fits = size <= self._max_bytes
            self._span, self._tables = ((from_s, to_s), dict(tables)) if fits else ((0, 0), {})


def runs(window_s: Sequence[int], width_s: int) -> list[tuple[int, int]]:
    """Few ranges [from, to) that hold all windows of an ascending sequence."""
    found: list[tuple[int, int]] = []
    for start in window_s:
        if found and start - found[-1][1] <= GAP_S:
            found[-1] = (found[-1][0], start + width_s)
        else:
            found.append((start, start + width_s))
    return found if len(found) <= MAX_RUNS else [(found[0][0], found[-1][1])]


def only(rows: pl.DataFrame, window_s: Sequence[int]) -> pl.DataFrame:
    """Rows of these windows."""
    wanted = pl.Series([s * 1_000_000_000 for s in window_s], dtype=pl.Int64)
    return rows.filter(pl.col("window_start_ns").is_in(wanted.implode()))


def _woven(old: pl.DataFrame, new: pl.DataFrame, marks: Marks, before: Marks, same: set[int]) -> pl.DataFrame:
    """Rows of `same` windows from the old frame and of the other ones from the new frame, by window."""
    order = sorted({*marks, *before})
    sides = groupby(order, lambda s: "old" if s in same else "new" if s in marks else "gone")
    starts = {"old": old["window_start_ns"].to_numpy(), "new": new["window_start_ns"].to_numpy()}
    frames = {"old": old, "new": new}
    parts = [new.clear()]
    for side, group in sides:
        if side == "gone":
            continue
        windows_s = list(group)
        ends = np.array([windows_s[0], windows_s[-1] + 1], np.int64) * 1_000_000_000
        first, last = np.searchsorted(starts[side], ends).tolist()
        parts.append(frames[side].slice(first, last - first))
    return pl.concat(parts, rechunk=True)
