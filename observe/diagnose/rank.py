"""Suspects in order of confidence: a rule is a function from a suspect to a factor, the ranking a product of rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from observe.diagnose.blame import Blamer
from observe.diagnose.graph import Floats
from observe.diagnose.series import Series, correlation
from observe.diagnose.symptoms import STRONG, Symptom
from observe.types import WINDOW_NS

SUSPECTED = 0.01
"""Who accounts for less is no suspect."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """One node, or outside traffic, as the explanation of a group of symptoms."""

    node: int
    name: str
    share: float  # of the symptoms, weighted mean
    errors: bool  # explains errors more than latency
    onset_ns: int | None
    symptom_onset_ns: int
    correlation: float | None


Rule = Callable[[Suspect], float]


def explains(suspect: Suspect) -> float:
    """The part of the symptoms that the suspect accounts for."""
    return suspect.share


def no_later_than_effects(suspect: Suspect) -> float:
    """1 for a suspect that moved with or before the symptom; one window late is within what an onset is known to."""
    if suspect.onset_ns is None:
        return 0.9
    late = (suspect.onset_ns - suspect.symptom_onset_ns) / WINDOW_NS
    return max(0.3, 1.0 - 0.15 * max(0.0, late - 1.0))


def moves_together(suspect: Suspect) -> float:
    """Near 1 where the suspect's own series rises and falls with the symptom's."""
    return 0.85 if suspect.correlation is None else 0.7 + 0.3 * max(0.0, suspect.correlation)


RULES: tuple[Rule, ...] = (explains, no_later_than_effects, moves_together)


def confidence(suspect: Suspect) -> float:
    """0..1."""
    return min(1.0, math.prod(rule(suspect) for rule in RULES))


def suspects(members: list[Symptom], blames: list[Floats], blamer: Blamer, known: Series) -> list[Suspect]:
    """Everything that the members' blame points at, most confident first; ties by name."""
    weights = np.array([m.weight for m in members])
    if weights.max() >= STRONG:
        # What merely follows (slower callers send less) is part of the diagnosis, and no evidence for its cause.
        weights = np.where(weights >= STRONG, weights, 0.0)
    shares = (weights[:, None] * np.stack(blames)).sum(axis=0) / weights.sum()
    strongest = max(members, key=lambda m: (m.weight, m.sign, -m.onset_ns, -m.service))
    errors = np.zeros(len(shares))
    for member, blame in zip(members, blames, strict=True):
        errors += (1 if member.aspect == "errors" else -1) * member.weight * blame
    found = [
        _suspect(int(node), float(shares[node]), bool(errors[node] > 0), strongest, members, blamer, known)
        for node in np.flatnonzero(shares > SUSPECTED)
    ]
    return sorted(found, key=lambda s: (-round(confidence(s), 9), s.name, s.node))


def _suspect(
    node: int, share: float, errors: bool, strongest: Symptom, members: list[Symptom], blamer: Blamer, known: Series
) -> Suspect:
    picture = blamer.picture
    onset_ns = min(m.onset_ns for m in members if m.weight >= 0.5 * strongest.weight)
    symptom = picture.name(strongest.service)
    theirs = (known.error_ratio if strongest.aspect == "errors" else known.latency_ms).get(symptom)
    if node == blamer.outside:
        together = None if theirs is None else correlation(known.entering, theirs)
        return Suspect(node, "", share, False, known.onset_ns(known.entering), onset_ns, together)
    name = picture.name(node)
    mine = (known.own_errors if errors else known.own_ms).get(name)
    stated = [m.onset_ns for m in members if m.service == node and m.aspect == ("errors" if errors else "latency")]
    started = min(stated) if stated else None if mine is None else known.onset_ns(mine)
    together = None if mine is None or theirs is None else correlation(mine, theirs)
    return Suspect(node, name, share, errors, started, onset_ns, together)
