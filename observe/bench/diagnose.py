"""`observe bench diagnose`: how often the first cause is right on labelled public cases, beside plain floors."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from observe.bench import whole
from observe.bench.public import Labelled, cases
from observe.diagnose.offline import Case, Ranked, rank
from observe.diagnose.offline.floor import largest_shift
from observe.errors import Misconfigured
from observe.types import Json

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

FIRST = 5
"""AC@1 to AC@5 are counted; Avg@5 is their mean."""
NINETY_FIVE = 1.959964


Ranker = Callable[[Case], tuple[Ranked, Json]]
"""A case to its ranked services, and what else is to be told of it."""


def _offline(case: Case) -> tuple[Ranked, Json]:
    return rank(case), {}


def diagnose(
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
    *,
    chosen: Sequence[str] = (),
    pipeline: bool = False,
) -> Json:
    """Ranks the services of the cases in a folder: all, or those whose names match one of the shell patterns `chosen`.

    `pipeline`: through store, windows, detection and the live diagnosis; what is not named by an incident is not
    ranked. Raises Misconfigured where no case is left."""
    given = list(cases(folder, chosen))
    if not given and chosen:
        raise Misconfigured(f"--data {folder}: no such case")
    if not pipeline:
        return scored(folder.name, given, progress)
    with whole.Pipeline() as ranker:
        result = scored(folder.name, given, progress, ranker)
    spanless = sum(one.case.spans_after.is_empty() or one.case.spans_before.is_empty() for one in given)
    return result | {"mode": "pipeline", "without_spans": spanless}


def scored(
    name: str,
    given: Iterable[Labelled],
    progress: Callable[[int], None] = lambda done: None,
    ranker: Ranker = _offline,
) -> Json:
    """Ranks the services of every case. `cases`: one entry each; `scores`: per method, overall and by fault; `metrics`:
    whether the metric named beside the service is right; `resources`: service and metric together, ranked. A case that
    cannot be ranked says why in `error` and is a miss of every method."""
    found = []
    places: dict[str, list[float]] = {"observe": [], "largest_shift": [], "random": []}
    faults = []
    for labelled in given:
        entry, services = _one(labelled, ranker)
        found.append(entry)
        progress(len(found))
        if not labelled.truth:
            continue
        faults.append(labelled.fault)
        places["observe"].append(_place(entry["ranked"], labelled.truth))
        if any("asked" in one for one in found):
            places.setdefault("asked", [0.0] * (len(faults) - 1)).append(_place(entry.get("asked", []), labelled.truth))
        floor = [] if entry["error"] else largest_shift(labelled.case)
        places["largest_shift"].append(_place(floor, labelled.truth))
        places["random"].append(services or math.inf)
    methods = {
        "observe": _hits(places["observe"]),
        **({"asked": _hits(places["asked"])} if "asked" in places else {}),
        "largest_shift": _hits(places["largest_shift"]),
        "random": _by_chance(places["random"]),
    }
    seconds = [entry["seconds"] for entry in found]
    return {
        "data": name,
        "cases": found,
        "scores": {name: _scores(hits, faults) for name, hits in methods.items()},
        "metrics": _metrics(found),
        "resources": _resources(found),
        "seconds": {"mean": float(np.mean(seconds or [0.0])), "max": max(seconds, default=0.0)},
    }


def _one(labelled: Labelled, ranker: Ranker) -> tuple[Json, int]:
    began = time.perf_counter()
    ranked, told, error = _ranked(labelled, ranker)
    seconds = time.perf_counter() - began
    entry: Json = {
        "case": labelled.name,
        "fault": labelled.fault,
        "truth": labelled.truth,
        "metric": ranked.metric[0] if ranked.metric else "",
        "metric_right": ranked.metric[0] in labelled.metrics if labelled.metrics and ranked.metric else None,
        "place": int(_place(ranked.services, labelled.truth)) or None,
        "resource_place": _resource_place(ranked.resources, labelled) if labelled.metrics else None,
        "ranked": ranked.services,
        "resources": [f"{service} {metric}" for service, metric in ranked.resources],
        "scores": [round(score, 4) for score in ranked.score],
        "evidence": {kind: round(values[0], 4) for kind, values in ranked.evidence.items() if values},
        "seconds": round(seconds, 4),
        "error": error,
        "notes": list(labelled.notes),
    }
    return entry | told, 0 if error else len(labelled.case.services())


def _ranked(labelled: Labelled, ranker: Ranker) -> tuple[Ranked, Json, str]:
    """No services, and why, where a case cannot be ranked."""
    error = labelled.error
    if not error:
        try:
            return *ranker(labelled.case), ""
        except Exception as failed:  # whatever it is: the others are to be scored
            log.warning("%s cannot be ranked", labelled.name, exc_info=True)
            error = f"{type(failed).__name__}: {failed}"
    return Ranked([], [], [], [], {}), {}, error


def _metrics(found: Sequence[Json]) -> Json:
    """Of the cases whose first service is right and whose acceptable metrics are known: is ours one of them?"""
    right = [entry["metric_right"] for entry in found if entry["place"] == 1 and entry["metric_right"] is not None]
    return {"cases": len(right), "right": round(float(np.mean(right)), 4) if right else 0.0}


def _resource_place(ranked: Sequence[tuple[str, str]], labelled: Labelled) -> int:
    """Of the first acceptable metric of the true service; 0 where none is among them."""
    hits = (
        i for i, (service, metric) in enumerate(ranked, 1) if service == labelled.truth and metric in labelled.metrics
    )
    return next(hits, 0)


def _resources(found: Sequence[Json]) -> Json:
    """Over the cases whose acceptable metrics are known."""
    known = [entry for entry in found if entry["resource_place"] is not None]
    return _scores(_hits([entry["resource_place"] for entry in known]), [entry["fault"] for entry in known])


def _place(ranked: Sequence[str], truth: str) -> float:
    """1 for the first; 0 where the truth is not among them."""
    return float(ranked.index(truth) + 1 if truth in ranked else 0)


# ── scores ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hits(places: Sequence[float]) -> Floats:
    """Cases × FIRST: 1 where the truth is among the first 1, 2, …"""
    place = np.array(places, dtype=np.float64).reshape(-1, 1)
    return ((place > 0) & (place <= np.arange(1, FIRST + 1))).astype(np.float64)


def _by_chance(services: Sequence[float]) -> Floats:
    """The same, in expectation, for an order drawn at random."""
    n = np.maximum(np.array(services, dtype=np.float64).reshape(-1, 1), 1.0)
    return np.minimum(np.arange(1, FIRST + 1) / n, 1.0)


def _scores(hits: Floats, faults: Sequence[str]) -> Json:
    named = np.array(faults, dtype=np.str_)
    by_fault = {fault: _score(hits[named == fault]) for fault in sorted(set(faults))}
    return {"overall": _score(hits), "by_fault": by_fault}


def _score(hits: Floats) -> Json:
    """Each figure with its 95 % interval."""
    n = len(hits)
    if not n:
        return {"cases": 0}
    figures = {"ac@1": hits[:, 0], "ac@3": hits[:, 2], "ac@5": hits[:, 4], "avg@5": hits.mean(axis=1)}
    return {"cases": n} | {
        name: {"value": round(float(x.mean()), 4), "interval": [round(end, 4) for end in wilson(float(x.mean()), n)]}
        for name, x in figures.items()
    }


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of `n` cases (Wilson 1927, doi:10.1080/01621459.1927.10502953). For a mean of values
    between 0 and 1 it is wider than needed, never narrower.

    >>> [round(end, 2) for end in wilson(0.5, 16)]
    [0.28, 0.72]
    """
    z2 = NINETY_FIVE**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NINETY_FIVE / (1 + z2 / n) * ((share * (1 - share) / n + z2 / (4 * n**2)) ** 0.5)
    return max(0.0, middle - half), min(1.0, middle + half)


def text(result: Json) -> str:
    """The result as lines for people."""
    lines = [
        f"{entry['case']:60} {entry['fault']:18} {entry['place'] or '-':>3}  {', '.join(entry['ranked'][:3])}"
        + (f"  | asked: {', '.join(entry['asked'][:3])}" if "asked" in entry else "")
        + (f"  ! {entry['error']}" if entry["error"] else "")
        + "".join(f"  ({note})" for note in entry["notes"])
        for entry in result["cases"]
    ]
    for method, scores in result["scores"].items():
        for fault, score in {"overall": scores["overall"], **scores["by_fault"]}.items():
            if score["cases"]:
                lines.append(f"{method:14} {fault:20} {score['cases']:4}  " + _figures(score))
    for fault, score in {"overall": result["resources"]["overall"], **result["resources"]["by_fault"]}.items():
        if score["cases"]:
            lines.append(f"{'with metric':14} {fault:20} {score['cases']:4}  " + _figures(score))
    return "\n".join(
        [*lines, f"seconds per case: mean {result['seconds']['mean']:.2f}, max {result['seconds']['max']:.2f}"]
    )


def _figures(score: Json) -> str:
    return "  ".join(
        f"{name.upper()} {figure['value']:.2f} [{figure['interval'][0]:.2f} {figure['interval'][1]:.2f}]"
        for name, figure in score.items()
        if name != "cases"
    )
