"""Pods and containers as causes: held back at the limit of their processor or memory, killed, started again."""

from __future__ import annotations

from collections.abc import Sequence

from observe.diagnose.readings import Reading, Told, Verdict
from observe.pods import CPU_LIMITS, MEMORY_LIMITS, MEMORY_PERCENT, OUT_OF_MEMORY, RESTARTS, THROTTLED

HELD_BACK = 0.25
"""Part of the periods in which a container was held back, from which it counts."""
FULL, ROOM = 0.95, 0.85
"""Of a limit: at it, and clearly below it."""


def held_back(series: Sequence[Told]) -> Verdict:
    """The scheduler says so, or the use says it: a container at its limit gets no more."""
    for s in series:
        of = next((o for o in series if o.metric == THROTTLED.get(s.metric)), None)
        if of is None or of.after <= 0:
            continue
        after, before = s.after / of.after, s.before / of.before if of.before > 0 else 0.0
        if after >= HELD_BACK and after > 2 * before:
            text = f"processor held back in {after:.0%} of the periods, {before:.0%} before"
            return 0.7, [s.said(text)]
    for s in series:
        if s.metric in CPU_LIMITS and s.after >= FULL and s.before < ROOM:
            return 0.5, [s.said(f"processor rose from {s.before:.0%} to {s.after:.0%} of its limit")]
    return 0.0, []


def short_of_memory(series: Sequence[Told]) -> Verdict:
    """Near the limit a container reclaims memory instead of working, and may be killed next."""
    for s in series:
        scale = 0.01 if s.metric in MEMORY_PERCENT else 1.0
        if s.metric in (*MEMORY_LIMITS, *MEMORY_PERCENT) and s.after_max * scale >= FULL and s.before * scale < ROOM:
            text = f"memory rose from {s.before * scale:.0%} to {s.after_max * scale:.0%} of its limit"
            return 0.3, [s.said(text)]
    return 0.0, []


def started_again(series: Sequence[Told]) -> Verdict:
    """Counts of restarts as they are, or their rate."""
    strength, said = 0.0, list[Reading]()
    for s in series:
        if s.metric in OUT_OF_MEMORY and s.after_max > s.before_max:
            strength, said = 0.8, [*said, s.said("killed for want of memory since the onset")]
        if s.metric in RESTARTS and s.after_max > s.before_max:
            strength = 0.8
            said.append(s.said(f"started again since the onset ({s.before_max:g} → {s.after_max:g} {_unit(s)})"))
    return strength, said


def _unit(s: Told) -> str:
    return "per second" if s.metric.startswith("kube_") else "restarts"


RULES = (held_back, short_of_memory, started_again)
