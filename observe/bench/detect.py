"""`observe bench detect`: detection of labelled public gauges, or, without data, seconds and memory of a tick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from observe.bench import nab
from observe.bench.tables import by_case, listed, table, text_of
from observe.detect.statistics import Floats, Ints
from observe.detect.streaming import QUIET, surprises, told
from observe.errors import Misconfigured
from observe.types import Json

COLUMNS = {"case": pl.String, "time_s": pl.Float64, "value": pl.Float64}
RANDOM_TIMES = 100  # the score of chance is a mean over this many
Z_WINDOW = 288  # points of the rival's past
Z_TOLD = 6.0  # robust sigmas at which it tells


@dataclass(frozen=True, slots=True)
class Labelled:
    """A univariate series by time, and when something is known to have been wrong; both in Unix seconds."""

    name: str
    time_s: Floats
    value: Floats
    windows_s: tuple[tuple[float, float], ...]
    error: str = ""  # what is wrong with the case: it says nothing then


Method = Callable[[Labelled], Ints]
"""Points at which it tells, in order."""


def series(folder: Path) -> Iterator[Labelled]:
    """In the order of the folder's list. Raises Misconfigured where the folder is no such set."""
    entries = listed(folder)
    rows = table(folder, "metrics", COLUMNS, {text_of(entry, "case") for entry in entries}, gaps=True)
    if rows is None:
        raise Misconfigured(f"--data {folder}: metrics.parquet is expected in it")
    rows = rows.sort("time_s", maintain_order=True)
    parts = by_case(rows)
    for number, entry in enumerate(entries, 1):
        name = text_of(entry, "case")
        part = parts.get(name, rows.drop("case").clear())
        error = "" if name else "the case has no `case`, its name"
        windows: tuple[tuple[float, float], ...] = ()
        try:
            windows = tuple((float(start), float(end)) for start, end in entry["windows_s"])
        except (KeyError, TypeError, ValueError):
            error = error or "`windows_s` is no list of [start, end] in seconds"
        error = error or ("" if part.height else "no rows in metrics.parquet")
        value = part["value"].fill_null(float("nan"))
        yield Labelled(name or f"(case {number})", part["time_s"].to_numpy(), value.to_numpy(), windows, error)


def detect_data(folder: Path, progress: Callable[[int], None] = lambda done: None) -> Json:
    """`cases`: when each was told of and how surely; `scores`: NAB's standard profile per method, over all cases."""
    found: list[Json] = []
    totals = {name: nab.Score() for name in ("observe", *RIVALS)}
    chance = 0.0
    spent = dict.fromkeys(totals, 0.0)
    for case in series(folder):
        entry, score = _one(case)
        found.append(entry)
        totals["observe"] += score
        spent["observe"] += entry["seconds"]
        for name, rival in RIVALS.items():
            began = time.perf_counter()
            points = rival(case)
            spent[name] += time.perf_counter() - began
            totals[name] += _score(case, points)
        chance += _by_chance(case, len(entry["detections"]))
        progress(len(found))
    scores = {name: _summary(total, spent[name] / max(len(found), 1)) for name, total in totals.items()}
    windows = totals["observe"].windows
    return {
        "data": folder.name,
        "profile": "NAB standard: 0 = says nothing, 100 = every window at its start and nothing else",
        "cases": found,
        "scores": scores | {"random": {"nab": _rounded(nab.Score(chance, windows).normalised), "windows": windows}},
        "seconds": {
            "mean": round(spent["observe"] / max(len(found), 1), 4),
            "max": max((entry["seconds"] for entry in found), default=0.0),
        },
    }


def _one(case: Labelled) -> tuple[Json, nab.Score]:
    began = time.perf_counter()
    surprise = surprises(case.value)
    points = told(surprise, nab.probation(len(case.value)))
    seconds = time.perf_counter() - began
    score = _score(case, points)
    entry: Json = {
        "case": case.name,
        "points": len(case.value),
        "detections": [
            {"time_s": float(case.time_s[at]), "score": round(float(surprise[at]), 3)} for at in points.tolist()
        ],
        "surprise": {
            name: round(float(np.quantile(surprise, q)), 3) if len(surprise) else 0.0
            for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "windows": score.windows,
        "found": score.found,
        "false_alarms": score.false_alarms,
        "nab": _rounded(score.normalised),
        "nab_points": round(score.points, 4),
        "seconds": round(seconds, 4),
        "error": case.error,
    }
    return entry, score


def _score(case: Labelled, points: Ints) -> nab.Score:
    detected = np.zeros(len(case.value), dtype=bool)
    detected[points] = True
    return nab.score(detected, case.time_s, case.windows_s)


def _summary(total: nab.Score, seconds: float) -> Json:
    return {
        "nab": _rounded(total.normalised),
        "windows": total.windows,
        "found": total.found,
        "false_alarms": total.false_alarms,
        "seconds_per_case": round(seconds, 4),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


# ── rivals ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _never(case: Labelled) -> Ints:
    return np.zeros(0, dtype=np.int64)


def _always(case: Labelled) -> Ints:
    return np.arange(len(case.value))


def robust_z(case: Labelled) -> Ints:
    """A loop over points: median and median deviation of the last Z_WINDOW, told beyond Z_TOLD, quiet afterwards as
    long as the detector is."""
    first = nab.probation(len(case.value))
    points: list[int] = []
    for at in range(first, len(case.value)):
        past = case.value[max(0, at - Z_WINDOW) : at]
        if len(past) < 2 or (points and at - points[-1] <= QUIET):
            continue
        middle = float(np.median(past))
        spread = 1.4826 * float(np.median(np.abs(past - middle)))
        if abs(case.value[at] - middle) > Z_TOLD * max(spread, 1e-9 + 1e-3 * abs(middle)):
            points.append(at)
    return np.array(points, dtype=np.int64)


RIVALS: dict[str, Method] = {"null": _never, "always_on": _always, "robust_z_loop": robust_z}


def _by_chance(case: Labelled, detections: int) -> float:
    """Points of as many detections as the detector made, put anywhere; the mean of RANDOM_TIMES tries."""
    rng, first = np.random.default_rng(0), nab.probation(len(case.value))
    open_to_it = len(case.value) - first
    tries = [
        _score(case, first + np.sort(rng.choice(open_to_it, min(detections, open_to_it), replace=False))).points
        for _ in range(RANDOM_TIMES)
    ]
    return float(np.mean(tries))


def text(result: Json) -> str:
    """The result of either form as lines for people."""
    if "ticks" in result:
        return "\n".join("  ".join(f"{key} {value}" for key, value in tick.items()) for tick in result["ticks"])
    lines = [
        f"{entry['case']:60} {entry['found']}/{entry['windows']} found  {entry['false_alarms']:3} false alarms"
        + (f"  ! {entry['error']}" if entry["error"] else "")
        for entry in result["cases"]
    ]
    for method, score in result["scores"].items():
        lines.append(f"{method:14} NAB {'-' if score['nab'] is None else format(score['nab'], '.1f')}")
    return "\n".join([*lines, f"seconds per case: mean {result['seconds']['mean']}, max {result['seconds']['max']}"])
