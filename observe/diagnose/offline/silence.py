"""Which services fell silent, from metrics: what they reported always, they report no more, or as next to nothing.

A process that died uses no memory and serves nobody. A service that nobody asks serves nobody either, but it is still
there; and where callers fell silent too, the callee only follows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.diagnose.offline.names import kind_of
from observe.diagnose.offline.places import Places
from observe.diagnose.offline.shifts import Wide, levels, stretch

Floats = NDArray[np.float64]

GONE = 0.05
"""A level below this part of what was usual is none."""
THERE = 0.3
"""A series that had fallen below this part of its usual level before comes and goes anyway."""
RARE = 0.02
"""So rare may it have come and gone nevertheless."""
ASKED = 0.5
"""What requests alone tell, at most: a caller may have stopped to ask."""
FEWEST = 3
"""Fewer steps than this say nothing when nothing is reported in them."""


def silence(table: Wide, inject_at_s: float, places: Places) -> Floats:
    """0..1 per service: the part of its series that are gone, less what callers and the whole fleet lost as well.

    Only what a process uses tells that it is dead. Of a service of which nothing but requests is known, that it was
    asked often tells at least that somebody misses it.
    """
    gone = _gone(table, inject_at_s)
    count = np.zeros(len(places.names))
    part, uses, asked = np.zeros(len(count)), np.zeros(len(count)), np.zeros(len(count))
    use = np.isin(gone.kind, ("resource", "network"))
    where = places.index(gone.service)
    np.add.at(uses, where, use)
    heard = use | (uses[where] == 0)
    np.add.at(part, where[heard], gone.gone[heard])
    np.add.at(count, where[heard], 1.0)
    np.maximum.at(asked, where, np.where(gone.kind == "traffic", gone.usual, 0.0))
    part = part / np.maximum(count, 1.0)
    missed = asked / max(float(asked.max(initial=0.0)), 1e-300)
    part = np.where(uses > 0, part, ASKED * part * missed)
    above = (places.calls * part[:, None]).max(axis=0, initial=0.0) if places.known else np.zeros(len(part))
    fleet = float(part[count > 0].mean()) if (count > 0).sum() > 1 else 1.0  # alone: the recording may have ended
    return np.asarray(part * np.clip(1 - above, 0.0, 1.0) * max(0.0, 1 - 2 * fleet))


@dataclass(frozen=True, slots=True)
class _Gone:
    """Series that were there all the time."""

    service: NDArray[np.str_]
    kind: NDArray[np.str_]
    usual: Floats
    gone: Floats  # 1 where nothing is left


def _gone(table: Wide, inject_at_s: float) -> _Gone:
    times, names, values = table
    is_after = times >= inject_at_s
    steps = int(is_after.sum())
    if steps < FEWEST or len(times) - steps < FEWEST:
        nothing = np.zeros(0, dtype=np.str_)
        return _Gone(nothing, nothing, np.zeros(0), np.zeros(0))
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    length = stretch(len(times) - steps, steps)
    low0, low1 = levels(filled[~is_after], length)[1], levels(filled[is_after], length)[1]
    usual = np.median(filled[~is_after], axis=0)
    always = np.quantile(low0, RARE, axis=0) > THERE * usual
    told = always & (usual > 0) & (present[~is_after].mean(axis=0) >= 0.5)
    gone = np.median(low1, axis=0) < GONE * usual
    kind = np.array([kind_of(metric) for metric in names["metric"].to_list()], dtype=np.str_)
    return _Gone(
        names["service"].to_numpy().astype(np.str_)[told], kind[told], usual[told], gone[told].astype(np.float64)
    )
