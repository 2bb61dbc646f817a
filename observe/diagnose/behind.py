"""Addresses behind which something known is slow: a service without spans hides who calls whom.

Its callers wait for an address, and what it calls begins traces of its own. Both get a diagnosis, which began together;
the one that ends at an address does not know what is behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Evidence

TOGETHER_NS = 3 * WINDOW_NS
"""Onsets are known to a window or two."""
LEFT = 0.6
"""What is left of the confidence in an address when a known cause began with it."""
OPEN_ENDED = (CauseKind.EXTERNAL, CauseKind.UNKNOWN, CauseKind.TRAFFIC)


def behind(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The diagnoses in the same order, but those that end at an address and began with one that does not come last,
    less sure and with that as evidence."""
    firm = [d for d in found if d.causes[0].kind not in OPEN_ENDED]
    told, open_ended = [], []
    for diagnosis in found:
        nearest = _beside(diagnosis, firm)
        if nearest is None:
            told.append(diagnosis)
        else:
            first = _doubted(diagnosis.causes[0], nearest.causes[0])
            open_ended.append(replace(diagnosis, causes=(first, *diagnosis.causes[1:])))
    return told + open_ended


def _beside(diagnosis: Diagnosis, firm: Sequence[Diagnosis]) -> Diagnosis | None:
    """The surest of `firm` that began with a diagnosis that ends at an address."""
    if diagnosis.causes[0].kind is not CauseKind.EXTERNAL:
        return None
    near = [d for d in firm if abs(_onset(d) - _onset(diagnosis)) <= TOGETHER_NS]
    return max(near, key=lambda d: (d.causes[0].score, d.causes[0].service), default=None)


def _onset(diagnosis: Diagnosis) -> int:
    return min(s.onset_ns for s in diagnosis.symptoms)


def _doubted(cause: Cause, known: Cause) -> Cause:
    name = f"{known.resource} of {known.service}" if known.resource else known.service
    text = f"{cause.resource} sends no spans; {name} has had trouble since the same time and may be what is behind it"
    return replace(cause, score=round(cause.score * LEFT, 4), evidence=(*cause.evidence, Evidence("order", text)))
