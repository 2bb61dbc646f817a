"""Which cause an incident names: the best supported one, without changing its mind at every tick."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from observe.types import Cause, CauseKind

CLEAR_LEAD = 0.15
"""Difference of scores, to what the old first cause has now and had before, at which a new one is believed at once."""

LEAD = 0.05
"""Difference of scores that it needs when it comes first for the second time running."""

MAX_CAUSES = 10


def settled(held: tuple[Cause, ...], seen: tuple[Cause, ...]) -> tuple[Cause, ...]:
    """The causes to name now, given those named until now and those just found; the first is the one people go by.

    The first changes when another leads clearly, or comes first twice running. While it is held against a challenger,
    its score is not above the challenger's: this is how the next call knows, from what is stored alone, that the
    challenger comes for the second time.
    """
    if not seen or (seen[0].kind is CauseKind.UNKNOWN and held):
        return held
    if held and _less_narrow(seen[0], held[0]):
        # Attributes are not asked for at every look; what was found once is not forgotten meanwhile.
        seen = (replace(seen[0], resource=held[0].resource), *seen[1:])
    if not held or held[0].kind is CauseKind.UNKNOWN or same(held[0], seen[0]):
        return ranked(seen)
    challenger = seen[0]
    again = next((cause for cause in seen if same(cause, held[0])), None)
    first = again or held[0]
    lead = challenger.score - first.score
    clear = challenger.score - max(first.score, held[0].score) >= CLEAR_LEAD
    was_second = len(held) > 1 and same(held[1], challenger) and held[1].score >= held[0].score
    if clear or (was_second and (again is None or lead >= LEAD)):
        return ranked(seen)
    return ranked((replace(first, score=min(first.score, challenger.score)), *seen))


def _less_narrow(seen: Cause, held: Cause) -> bool:
    """Whether the one is the other without the attribute that its requests have in common."""
    at_service = seen.kind is held.kind is CauseKind.SERVICE and seen.service == held.service
    return at_service and not seen.resource and "=" in held.resource


def same(a: Cause, b: Cause) -> bool:
    """Whether both send people to the same place."""
    return place(a) == place(b)


def place(cause: Cause) -> tuple[CauseKind, str, str]:
    return cause.kind, cause.service, cause.resource


def ranked(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    """The causes in the given order, each place once, ranks from 1."""
    once: dict[tuple[CauseKind, str, str], Cause] = {}
    for cause in causes:
        once.setdefault(place(cause), cause)
    return tuple(replace(cause, rank=rank) for rank, cause in enumerate(list(once.values())[:MAX_CAUSES], start=1))
