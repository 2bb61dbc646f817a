"""Scores diagnosis on random fleets: a fault each, the real detection, and whether the first cause is the fault."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from observe.bench.graphs import FAULTS, Fault, Fleet, random_fault, random_fleet
from observe.bench.simulation import START_NS, Simulation
from observe.detect import detect, gauge_shifts
from observe.diagnose import diagnose
from observe.frames import Frames
from observe.settings import DetectSettings, DiagnoseSettings
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Shift

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case. `rank` is the place of the true service (or host, or database) among the causes, 0 when not there."""

    seed: int
    fault: str  # the kind that was injected; random_fault may fall back to another than was asked for
    detected: bool
    rank: int
    resource_right: bool  # the first cause also names the resource, or rightly none
    score: float  # confidence of the first cause that is not `unknown`
    diagnoses: int
    seconds: float
    both: bool = True  # where there are two faults: both are among the first two causes of some diagnoses
    told: tuple[tuple[float, bool], ...] = ()  # confidence of each diagnosis's first cause that is named; is it right?


@dataclass(frozen=True, slots=True)
class Case:
    """Frames with a fault in them, and the truth."""

    seed: int
    fault: Fault
    frames: Frames
    end_ns: int
    also: Fault | None = None  # a second fault, somewhere else, at the same time
    hidden: frozenset[str] = frozenset()  # services without instrumentation


def case(
    seed: int,
    services: int,
    kind: str,
    *,
    at_s: float = 600.0,
    after_s: float = 120.0,
    rate: float = 20.0,
    also: str = "",
    hidden: float = 0.0,
    skew_s: float = 0.0,
) -> Case:
    """The same seed gives the same case. `also`: kind of a second fault; `hidden`: part of the services that have no
    spans; `skew_s`: how far clocks of hosts are off."""
    rng = np.random.default_rng(seed)
    fleet, fault = random_fault(rng, random_fleet(rng, services), kind, at_s)
    second = None
    if also:
        fleet, second = _elsewhere(rng, fleet, fault, also, at_s)
    seconds = at_s + after_s
    faults = [f for f in (fault, second) if f is not None]
    frames = Simulation(fleet, faults, rng, seconds=seconds, requests_per_s=rate, skew_s=skew_s).frames()
    unseen: frozenset[str] = frozenset()
    if hidden:
        unseen = frozenset(rng.choice(fleet.services, size=round(hidden * len(fleet.services)), replace=False).tolist())
        frames = uninstrumented(frames, unseen)
    return Case(seed, fault, frames, START_NS + int(seconds * SECOND_NS), second, unseen)


def _elsewhere(
    rng: np.random.Generator, fleet: Fleet, first: Fault, kind: str, at_s: float
) -> tuple[Fleet, Fault | None]:
    """A second fault that has neither service nor resource in common with the first; None where none is found."""
    for _ in range(20):
        changed, fault = random_fault(rng, fleet, kind, at_s)
        shared = fault.kind in ("host", "database") and fault.resource == first.resource
        if fault.service != first.service and not shared:
            return changed, fault
    return fleet, None


def uninstrumented(frames: Frames, services: Collection[str]) -> Frames:
    """What is left of frames when these services make no spans and pass no trace context on: their callers still see
    an address and how long it took; below them new traces begin."""
    unseen = pl.col("callee").is_in(list(services))
    kept = frames.edges.filter(
        ~pl.col("caller").is_in(list(services)) & ~(unseen & (pl.col("connection") == "messaging"))
    )
    edges = kept.with_columns(
        callee_operation=pl.when(unseen).then(pl.lit("")).otherwise("callee_operation"),
        connection=pl.when(unseen).then(pl.lit("external")).otherwise("connection"),
        server_sum_ms=pl.when(~unseen).then("server_sum_ms"),
    )
    seen = ~pl.col("service").is_in(list(services))
    return replace(frames, windows=frames.windows.filter(seen), selfs=frames.selfs.filter(seen), edges=edges)


def score(given: Case, look_s: float | None = None) -> Outcome:
    """Diagnoses `given` when shifts have been seen for two looks in a row, or `look_s` after the fault."""
    settings = DetectSettings()
    shifts: list[Shift] = []
    now_ns = given.end_ns
    for now_ns in _looks(given, look_s):
        seen = detect(given.frames.between(0, now_ns), now_ns, settings)
        if shifts and seen:
            shifts = seen
            break
        shifts = seen
    view = given.frames.between(0, now_ns)
    context = gauge_shifts(view, now_ns, settings) if shifts else []
    began = time.perf_counter()
    found = diagnose(shifts, view, now_ns, DiagnoseSettings(), context)
    return outcome(given, found, time.perf_counter() - began)


def _looks(given: Case, look_s: float | None) -> Iterator[int]:
    fault_ns = START_NS + int(given.fault.at_s * SECOND_NS)
    if look_s is not None:
        yield from (fault_ns + int(look_s * SECOND_NS) - WINDOW_NS, fault_ns + int(look_s * SECOND_NS))
        return
    yield from range(fault_ns + 2 * WINDOW_NS + 2 * SECOND_NS, given.end_ns, WINDOW_NS)


def outcome(given: Case, found: Sequence[Diagnosis], seconds: float) -> Outcome:
    """Where the truth stands in the first diagnosis."""
    truths = [f for f in (given.fault, given.also) if f is not None]
    causes = found[0].causes if found else ()
    ranks = [c.rank for c in causes if any(right(c, fault, given.hidden) for fault in truths)]
    named = [c for c in causes if c.kind is not CauseKind.UNKNOWN]
    first = causes[0] if causes else None
    hit = [fault for fault in truths if first is not None and right(first, fault, given.hidden)]
    near = [c for d in found for c in d.causes[:2]]
    return Outcome(
        seed=given.seed,
        fault=given.fault.kind,
        detected=bool(found),
        rank=min(ranks, default=0),
        resource_right=any(_narrowed(first, fault, given.hidden) for fault in hit) if first else False,
        score=named[0].score if named else 0.0,
        diagnoses=len(found),
        seconds=seconds,
        both=all(any(right(c, fault, given.hidden) for c in near) for fault in truths),
        told=tuple(
            (c.score, any(right(c, fault, given.hidden) for fault in truths if fault.kind != "none"))
            for c in (d.causes[0] for d in found)
            if c.kind is not CauseKind.UNKNOWN
        ),
    )


def right(cause: Cause, fault: Fault, hidden: Collection[str] = ()) -> bool:
    """Whether a cause names the fault's service; for a shared database or host, the thing itself counts. Of a service
    without spans all that can be named is its address."""
    if cause.kind is CauseKind.UNKNOWN:
        return False
    if fault.kind in ("host", "database") and cause.resource == fault.resource:
        return True  # whoever of its users is seen
    if fault.kind == "release":
        return _of_release(cause, fault, hidden)
    if fault.service in hidden and fault.kind != "traffic":
        return cause.resource == fault.service
    if fault.kind in ("host", "database"):
        return cause.resource == fault.resource
    if fault.kind == "traffic":
        return cause.kind is CauseKind.TRAFFIC
    return cause.service == fault.service and cause.kind is not CauseKind.TRAFFIC


def _of_release(cause: Cause, fault: Fault, hidden: Collection[str]) -> bool:
    """The version of a service that is hurt; whether all of those are named is asked of the resource. Without their
    spans the address of one."""
    seen = fault.services - set(hidden)
    return cause.service in seen and cause.resource == fault.resource if seen else cause.resource in fault.services


def _narrowed(cause: Cause, fault: Fault, hidden: Collection[str]) -> bool:
    if fault.kind == "release":
        seen = fault.services - set(hidden)
        return len(seen) <= 1 or set(cause.services) == seen
    return fault.service in hidden or cause.resource == fault.resource


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """AC@1, AC@3 and share with the right resource, in all and by kind of fault, over the cases that were detected."""
    faulty = [o for o in outcomes if o.fault != "none"]
    quiet = [o for o in outcomes if o.fault == "none"]
    seen = [o for o in faulty if o.detected]
    return {
        "cases": len(faulty),
        "detected": len(seen),
        "ac1": _share([o.rank == 1 for o in seen]),
        "ac3": _share([1 <= o.rank <= 3 for o in seen]),
        "resource": _share([o.resource_right for o in seen]),
        "both": _share([o.both for o in seen]),
        "one_diagnosis": _share([o.diagnoses == 1 for o in seen]),
        "fault_free": len(quiet),
        "fault_free_detected": sum(o.detected for o in quiet),
        "fault_free_named": sum(o.score > 0.4 for o in quiet),
        "seconds_p90": float(np.quantile([o.seconds for o in outcomes], 0.9)) if outcomes else 0.0,
        "by_fault": {
            kind: {
                "cases": len(group),
                "detected": sum(o.detected for o in group),
                "ac1": _share([o.rank == 1 for o in group if o.detected]),
                "ac3": _share([1 <= o.rank <= 3 for o in group if o.detected]),
                "resource": _share([o.resource_right for o in group if o.detected]),
            }
            for kind in FAULTS
            if kind != "none" and (group := [o for o in faulty if o.fault == kind])
        },
        "calibration": [
            {
                "score": round(float(np.mean([o.score for o in some])), 3),
                "cases": len(some),
                "right": _share([o.rank == 1 for o in some]),
            }
            for low in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
            if (some := [o for o in seen if low < o.score <= (low + 0.1 if low >= 0.8 else low + 0.2)])
        ],
    }


def _share(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0
