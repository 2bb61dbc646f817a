"""What services say of their errors: records and exceptions that are new since the onset, or far more frequent.

Counts before and after are compared like two Poisson rates: given their sum, the later one is binomial (Przyborowski &
Wilenski 1940, doi:10.2307/2332612). False discoveries are controlled over all that was said. Callers complain of
callees, too: a service answers for its errors less where somebody whom it calls began to complain as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import networkx as nx
import numpy as np
import polars as pl
from scipy import stats

from observe.diagnose.attributes import MAX_ASKED, MAX_SIDE_NS, Ask
from observe.diagnose.levels import Periods, periods, sides
from observe.frames import Frames, LogQuestion
from observe.types import Cause, CauseKind, Diagnosis, Evidence
from observe.wire import API_PREFIX, rfc3339

FALSE_DISCOVERIES = 0.001
TIMES = 3.0
"""How many times more often than before it must be said."""
FEWEST = 5
MAX_TOLD = 2
PASSED_UP = 0.3
"""What is left of a complaint where somebody whom the service calls complains anew, too."""


@dataclass(frozen=True, slots=True)
class Complaint:
    service: str
    template: str
    before: int
    after: int
    p_value: float  # after control of false discoveries


def complaints(counts: pl.DataFrame, asked: LogQuestion) -> list[Complaint]:
    """What is said more often since then, the clearest first. `counts` are LOG_COUNTS."""
    before_s, after_s = _lengths(asked)
    told = counts.filter(pl.col("before") + pl.col("after") > 0)
    if told.is_empty() or min(before_s, after_s) <= 0:
        return []
    before, after = (told[name].to_numpy().astype(np.float64) for name in ("before", "after"))
    p = stats.binom.sf(after - 1, before + after, after_s / (before_s + after_s))
    q = stats.false_discovery_control(np.clip(p, 0.0, 1.0))
    more = (after >= FEWEST) & (after / after_s >= TIMES * before / before_s) & (q <= FALSE_DISCOVERIES)
    rows = told.filter(pl.Series(more)).select("service", "template", "before", "after").iter_rows()
    found = [
        Complaint(service, template, int(n0), int(n1), float(value))
        for (service, template, n0, n1), value in zip(rows, q[more].tolist(), strict=True)
    ]
    return sorted(found, key=lambda c: (c.p_value, -c.after, c.service, c.template))


def blame(found: Sequence[Complaint], graph: nx.DiGraph) -> dict[str, float]:
    """0..1 per service that complains; `graph` leads from callers to callees."""
    said = {complaint.service for complaint in found}
    below = {s: set(graph.successors(s)) & said - {s} if s in graph else set() for s in said}
    return {service: PASSED_UP if below[service] else 1.0 for service in sorted(said)}


def with_logs(found: Sequence[Diagnosis], frames: Frames, now_ns: int, ask: Ask) -> list[Diagnosis]:
    """The diagnoses, the first MAX_ASKED of them with what the services of their causes say."""
    return [_told(d, frames, now_ns, ask) if i < MAX_ASKED else d for i, d in enumerate(found)]


def _told(diagnosis: Diagnosis, frames: Frames, now_ns: int, ask: Ask) -> Diagnosis:
    services = {c.service for c in diagnosis.causes if c.service and c.kind is not CauseKind.UNKNOWN}
    onset_ns = min((s.onset_ns for s in diagnosis.symptoms), default=now_ns)
    when = periods(onset_ns, now_ns, frames.selfs)
    if not services or when is None:
        return diagnosis
    asked = question(tuple(sorted(services)), sides(when, MAX_SIDE_NS))
    said = heard(complaints(ask(asked), asked), asked)
    return replace(diagnosis, causes=tuple(_with(cause, said.get(cause.service, ())) for cause in diagnosis.causes))


def question(services: tuple[str, ...], when: Periods) -> LogQuestion:
    """All that these services (or any) say in these periods."""
    return LogQuestion(services, when.before_from_ns, when.before_to_ns, when.after_from_ns, when.after_to_ns)


def heard(found: Sequence[Complaint], asked: LogQuestion) -> Mapping[str, tuple[Evidence, ...]]:
    """Sentences per service, the clearest first."""
    said: dict[str, tuple[Evidence, ...]] = {}
    for one in found:
        mine = said.get(one.service, ())
        if len(mine) < MAX_TOLD:
            said[one.service] = (*mine, sentence(one, asked))
    return said


def sentence(one: Complaint, asked: LogQuestion) -> Evidence:
    """In words, with the address that lists the records."""
    before_s, after_s = _lengths(asked)
    usual = f"{one.before} times in the {before_s:g} s before" if one.before else f"never in the {before_s:g} s before"
    verb, _, what = one.template.partition(" ")
    text = f"{one.service} {verb} \u201c{what}\u201d {one.after} times in {after_s:g} s, {usual}"
    given = {"service": one.service, "from": rfc3339(asked.after_from_ns), "to": rfc3339(asked.after_to_ns)}
    signal, more = ("logs", {"severity": "error"}) if verb == "logs" else ("traces", {"errors": "true"})
    numbers = (("before", float(one.before)), ("after", float(one.after)))
    return Evidence("logs", text, numbers, f"{API_PREFIX}/{signal}?{urlencode(given | more, safe=':/')}")


def _lengths(asked: LogQuestion) -> tuple[float, float]:
    return (asked.before_to_ns - asked.before_from_ns) / 1e9, (asked.after_to_ns - asked.after_from_ns) / 1e9


def _with(cause: Cause, said: Sequence[Evidence]) -> Cause:
    return replace(cause, evidence=(*cause.evidence[:1], *said, *cause.evidence[1:])) if said else cause
