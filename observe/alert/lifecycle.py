"""The life of an incident: pending → firing → resolved. Pure: what is known and seen, and the time, in; changes out.

Times are arguments, and all state is in the incidents themselves, so a restart from the stored ones is no restart.
The four timings and their roles follow Prometheus's alerting rules (`for`, `keep_firing_for`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from observe.alert.causes import place, ranked, settled
from observe.alert.grouping import Group, groups, series
from observe.alert.telling import RANK, new_normal_text, severity, title
from observe.settings import AlertSettings, Rule
from observe.types import Cause, Diagnosis, Impact, Incident, Severity, Shift, State
from observe.words import GOES_ON

MAX_SYMPTOMS = 50
CREDIBLE_ONSET_NS = 600_000_000_000
"""An onset further before the incident was opened than this is taken for an accident of the estimate."""

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Clock:
    """What time it is, and what the settings make of it."""

    now_ns: int
    hold_ns: int
    keep_ns: int
    rules: dict[str, Rule]
    new_normal_ns: float = float("inf")

    def severities(self) -> dict[str, Severity]:
        return {name: Severity(rule.severity) for name, rule in self.rules.items()}

    def patience_ns(self, symptoms: Iterable[Shift]) -> int:
        """How long the trouble may be out of sight before it is over: the longest that a symptom's rule asks for."""
        own = (self.rules[s.rule].keep_firing_for_s for s in symptoms if s.rule in self.rules)
        return max(self.keep_ns, int(max(own, default=0.0) * SECOND_NS))


def step(
    known: Sequence[Incident],
    diagnoses: Sequence[Diagnosis],
    now_ns: int,
    settings: AlertSettings,
    rules: Sequence[Rule] = (),
    new_normal_s: float = float("inf"),
) -> list[Incident]:
    """The new state of every incident that changed, new ones included, oldest first.

    `known` may hold resolved incidents, and what is usual at its time; they stay as they are. `rules` are the fixed
    thresholds, for their severities. After `new_normal_s` detection takes a level for normal: an incident that is
    then out of sight ends, and says so.
    Pending incidents that are not seen again end as resolved with `fired_ns` None: nobody was told, nobody will be.
    """
    clock = _Clock(
        now_ns,
        int(settings.for_s * SECOND_NS),
        int(settings.keep_firing_for_s * SECOND_NS),
        {rule.name: rule for rule in rules},
        new_normal_s * SECOND_NS,
    )
    alive = sorted((i for i in known if i.state is not State.RESOLVED and not i.usual), key=_age)
    changed: list[Incident] = []
    seen = groups(alive, [d for d in diagnoses if d.symptoms])
    for group in seen:
        incident = _seen(group, clock)
        changed += [incident, *(_taken_over(young, incident, now_ns) for young in group.absorbed)]
    touched = {incident.id for incident in changed}
    changed += [i for i in (_unseen(i, clock) for i in alive if i.id not in touched) if i.state is State.RESOLVED]
    return sorted(changed, key=_age)


def _age(incident: Incident) -> tuple[int, int, str]:
    return incident.opened_ns, incident.onset_ns, incident.id


def _seen(group: Group, clock: _Clock) -> Incident:
    before = group.incident or _opened(group.diagnoses, clock.now_ns)
    causes = _causes(before, group.diagnoses)
    symptoms = _symptoms([*group.absorbed, before], group.diagnoses, causes)
    held_long = clock.now_ns - before.opened_ns >= clock.hold_ns
    fires = held_long or any(i.state is State.FIRING for i in [before, *group.absorbed])
    level = severity(symptoms, causes, clock.severities())
    if group.incident is not None and before.state is State.FIRING:
        # What woke somebody stays as bad as it was until it is over: levels near a bound must not flap.
        level = max(level, before.severity, key=RANK.__getitem__)
    after = replace(
        before,
        state=State.FIRING if fires else State.PENDING,
        severity=level,
        title=title(symptoms, causes),
        onset_ns=_onset(before, symptoms, causes),
        last_seen_ns=clock.now_ns,
        symptoms=symptoms,
        causes=causes,
        ruled_out=_best(group.diagnoses, causes).ruled_out or before.ruled_out,
        impact=_impact([before, *group.absorbed], group.diagnoses),
    )
    if after.state is State.FIRING and after.fired_ns is None:
        after = replace(after, fired_ns=clock.now_ns)
    worth_telling = group.incident is not None and after.state is State.FIRING and _told(before) != _told(after)
    return replace(after, version=before.version + 1) if worth_telling else after


def _told(incident: Incident) -> tuple[object, ...]:
    first = place(incident.causes[0]) if incident.causes else None
    return incident.state, incident.severity, first


def _unseen(incident: Incident, clock: _Clock) -> Incident:
    if _became_normal(incident, clock):
        return replace(_resolved(incident, clock.now_ns), note=new_normal_text(incident, clock.now_ns))
    quiet_ns = clock.now_ns - incident.last_seen_ns
    if incident.state is State.FIRING and quiet_ns < clock.patience_ns(incident.symptoms):
        return incident
    return _resolved(incident, clock.now_ns)


def _became_normal(incident: Incident, clock: _Clock) -> bool:
    """Whether it was in sight for as long as it was compared with the time before it."""
    until_ns = incident.onset_ns + clock.new_normal_ns
    lasted = until_ns - clock.patience_ns(incident.symptoms) < incident.last_seen_ns <= until_ns < clock.now_ns
    return lasted and incident.fired_ns is not None


def _resolved(incident: Incident, now_ns: int) -> Incident:
    return replace(incident, state=State.RESOLVED, resolved_ns=now_ns, version=incident.version + 1)


def _taken_over(young: Incident, old: Incident, now_ns: int) -> Incident:
    return replace(_resolved(young, now_ns), title=f"{young.title} ({GOES_ON} {old.id})")


def _opened(diagnoses: Sequence[Diagnosis], now_ns: int) -> Incident:
    first = diagnoses[0]
    symptoms = _symptoms([], diagnoses, first.causes)
    blank = Incident(
        id="",
        version=1,
        state=State.PENDING,
        severity=Severity.INFO,
        title="",
        onset_ns=min(shift.onset_ns for shift in symptoms),
        opened_ns=now_ns,
        last_seen_ns=now_ns,
        resolved_ns=None,
        symptoms=(),
        causes=(),
    )
    onset_ns = _onset(blank, symptoms, first.causes)
    return replace(blank, onset_ns=onset_ns, id=_id(now_ns, onset_ns, first.causes, symptoms))


def _id(now_ns: int, onset_ns: int, causes: Sequence[Cause], symptoms: Sequence[Shift]) -> str:
    """Twelve hex digits that every replay of the same data gives again."""
    cause = "/".join(place(causes[0])) if causes else ""
    text = f"{now_ns}|{onset_ns}|{cause}|{'/'.join(min(series(shift) for shift in symptoms))}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _causes(before: Incident, diagnoses: Sequence[Diagnosis]) -> tuple[Cause, ...]:
    best = _best(diagnoses, before.causes)
    seen = ranked([*best.causes, *(c for d in diagnoses if d is not best for c in d.causes)])
    # Nobody was told yet while it is pending: the newest answer rests on the most data.
    return seen if before.state is State.PENDING and seen else settled(before.causes, seen)


def _best(diagnoses: Sequence[Diagnosis], held: Sequence[Cause]) -> Diagnosis:
    """The diagnosis that speaks for the incident: the one of the cause named so far, else the surest."""
    named = [d for d in diagnoses if held and d.causes and place(d.causes[0]) == place(held[0])]
    return named[0] if named else max(diagnoses, key=lambda d: d.causes[0].score if d.causes else -1.0)


def _symptoms(before: Sequence[Incident], diagnoses: Sequence[Diagnosis], causes: Sequence[Cause]) -> tuple[Shift, ...]:
    """All series that shifted in the incident's life with their newest values and earliest onsets, bounded.

    Where there are too many, those on the first cause's path stay, then the surest.
    """
    union: dict[object, Shift] = {}
    for shift in [*(s for i in before for s in i.symptoms), *(s for d in diagnoses for s in d.symptoms)]:
        older = union.get(series(shift))
        onset_ns = shift.onset_ns if older is None else min(shift.onset_ns, older.onset_ns)
        union[series(shift)] = replace(shift, onset_ns=onset_ns)
    path = frozenset(causes[0].path) if causes else frozenset()
    kept = sorted(union.values(), key=lambda s: (s.service not in path, s.p_value, series(s)))[:MAX_SYMPTOMS]
    return tuple(sorted(kept, key=lambda s: (s.onset_ns, series(s))))


def _onset(before: Incident, symptoms: Sequence[Shift], causes: Sequence[Cause]) -> int:
    """Earliest credible onset: that of the cause's own symptoms if it has any, since effects only follow."""
    credible = [s for s in symptoms if s.onset_ns >= before.opened_ns - CREDIBLE_ONSET_NS]
    own = [s for s in credible if causes and s.service == causes[0].service]
    return min((s.onset_ns for s in own or credible), default=before.onset_ns)


def _impact(before: Sequence[Incident], diagnoses: Sequence[Diagnosis]) -> Impact:
    impacts = [i.impact for i in before] + [d.impact for d in diagnoses]
    services = sorted({service for impact in impacts for service in impact.services})
    return Impact(tuple(services), max(impact.requests_affected for impact in impacts))
