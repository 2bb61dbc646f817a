"""Which diagnoses belong to which open incident: shifts that share a cause become one incident."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from observe.types import Cause, CauseKind, Diagnosis, Incident, Shift

Series = tuple[str, str, str, str, str]


class Kinship(enum.IntEnum):
    """How surely two pieces of trouble are one."""

    NONE = 0
    SYMPTOM = 1  # they shift the same series, for causes that have nothing to do with each other
    CAUSE = 2


class Trouble(Protocol):
    """What an incident and a diagnosis have in common."""

    @property
    def symptoms(self) -> tuple[Shift, ...]: ...

    @property
    def causes(self) -> tuple[Cause, ...]: ...


@dataclass(slots=True, eq=False)
class Group:
    """One incident of the next moment: what it was (None: new), what was seen of it now, and whom it takes over."""

    incident: Incident | None
    diagnoses: list[Diagnosis] = field(default_factory=list)
    absorbed: list[Incident] = field(default_factory=list)

    def members(self) -> list[Trouble]:
        known = [] if self.incident is None else [self.incident]
        return [*known, *self.absorbed, *self.diagnoses]


def series(shift: Shift) -> Series:
    """What names a series of shifts; a rule watches beside the statistical test, and is a series of its own."""
    return shift.service, shift.operation, shift.kind, shift.measure, shift.rule


def known_cause(trouble: Trouble) -> Cause | None:
    """The first cause, or None where it is unknown."""
    first = trouble.causes[0] if trouble.causes else None
    return None if first is None or first.kind is CauseKind.UNKNOWN else first


def kinship(a: Trouble, b: Trouble) -> Kinship:
    """How surely `a` and `b` are the same trouble; symmetric.

    They share a cause when the first cause of one is that of the other, lies on the other's path, or is itself one of
    the other's symptoms; and when one has no known cause and shows itself only where the other does.
    """
    shared = {series(s) for s in a.symptoms} & {series(s) for s in b.symptoms}
    by_symptom = Kinship.SYMPTOM if shared else Kinship.NONE
    first, second = known_cause(a), known_cause(b)
    if first is None or second is None:
        return Kinship.CAUSE if shared or _inside(a, b, first) or _inside(b, a, second) else by_symptom
    if (first.kind is CauseKind.TRAFFIC) != (second.kind is CauseKind.TRAFFIC):
        # A surge at the door touches every path: being on it says nothing.
        return by_symptom
    if _points_at(first, second, b) or _points_at(second, first, a):
        return Kinship.CAUSE
    return by_symptom


def groups(open_incidents: Sequence[Incident], diagnoses: Sequence[Diagnosis]) -> list[Group]:
    """The incidents that were seen now, old ones first. `open_incidents` in order of age, oldest first.

    A diagnosis goes to its nearest kin, the oldest of equals. Incidents that share a cause with the same diagnosis are
    joined into the oldest of them.
    """
    found = [Group(incident) for incident in open_incidents]
    for diagnosis in diagnoses:
        kin = [max(kinship(diagnosis, member) for member in group.members()) for group in found]
        sharing = [group for group, near in zip(found, kin, strict=True) if near is Kinship.CAUSE]
        if sharing:
            home = sharing[0]
            for other in sharing[1:]:
                _join(home, other)
            found = [group for group in found if group is home or group not in sharing]
        elif Kinship.SYMPTOM in kin:
            home = _without_own(found, kin, diagnoses)
        else:
            home = Group(None)
            found.append(home)
        home.diagnoses.append(diagnosis)
    return [group for group in found if group.diagnoses]


def _without_own(found: list[Group], kin: list[Kinship], diagnoses: Sequence[Diagnosis]) -> Group:
    """The oldest group that shares a series, if no diagnosis of this moment is its own; a new one else."""
    for group, near in zip(found, kin, strict=True):
        own = group.incident is None or any(kinship(group.incident, d) is Kinship.CAUSE for d in diagnoses)
        if near is Kinship.SYMPTOM and not own:
            return group
    found.append(Group(None))
    return found[-1]


def _join(home: Group, other: Group) -> None:
    home.diagnoses += other.diagnoses
    home.absorbed += other.absorbed
    if other.incident is not None:
        home.absorbed.append(other.incident)


def _points_at(cause: Cause, other: Cause, trouble: Trouble) -> bool:
    same_resource = cause.kind is other.kind and cause.resource == other.resource != ""
    return (
        cause.service == other.service
        or same_resource
        or cause.service in other.path
        or any(cause.service == shift.service for shift in trouble.symptoms)
    )


def _inside(a: Trouble, b: Trouble, cause: Cause | None) -> bool:
    if cause is not None or not a.symptoms:
        return False
    places = {shift.service for shift in b.symptoms}.union(*(c.path for c in b.causes[:1]))
    return {shift.service for shift in a.symptoms} <= places
