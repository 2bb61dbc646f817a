"""An incident as a text to read on a phone: what, since when, how sure, who suffers, the evidence, what was ruled out.

Names and texts come from telemetry: they are escaped here, and nothing in them can become markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import NamedTuple

from observe.types import Cause, CauseKind, Incident, Json, RuledOut, Shift, State
from observe.wire import API_PREFIX, rfc3339
from observe.words import GOES_ON, MEASURES, MOST_SURE, place

MAX_SYMPTOMS = 5
MAX_CAUSES = 3
MAX_EVIDENCE = 6
MAX_RULED_OUT = 5
MAX_SERVICES = 8
MAX_TRACES = 2
LIKELY = 0.05
"""Confidence from which a cause beside the first is worth reading."""
CHANGES = ("version", "traffic", "resource", "attribute", "season")
"""Kinds of evidence that say what was different, apart from where the time went."""


class Sentence(NamedTuple):
    text: str
    query: str  # address on the API that gives its numbers again; "" where it has none


class Section(NamedTuple):
    heading: str
    lines: list[Sentence]


def as_kept(newest: Incident, kept: Incident) -> Incident:
    """The incident as it stands now, explained by the look that was kept: that answer can be made again."""
    return replace(newest, symptoms=kept.symptoms, causes=kept.causes, ruled_out=kept.ruled_out, impact=kept.impact)


def text(incident: Incident, looked_ns: int | None = None, base: str = "") -> str:
    """The explanation for a terminal. Numbers in brackets name the questions at its end."""
    asked: dict[str, int] = {}
    parts = [_plain(incident.title), _plain(_status(incident, looked_ns))]
    for section in sections(incident, looked_ns):
        lines = [f"  - {_plain(line.text)}{_note(line.query, asked)}" for line in section.lines]
        parts.append("\n".join([_plain(section.heading), *lines]))
    if asked:
        parts.append("\n".join(["To check", *(f"  [{number}] {base}{query}" for query, number in asked.items())]))
    return "\n\n".join(parts) + "\n"


def statements(body: Json) -> Mapping[str, str]:
    """SQL by address, of the sentences of an incident as the API gives it."""
    said = [*body["symptoms"], *(e for cause in body["causes"] for e in cause["evidence"]), *body["ruled_out"]]
    return {one["query"]: one["sql"] for one in said if one.get("sql")}


def markdown(
    incident: Incident, looked_ns: int | None = None, base: str = "", statements: Mapping[str, str] | None = None
) -> str:
    """The explanation in CommonMark; each sentence links to the question that gives its numbers again. The SQL of those
    that have `statements` stands folded at the end."""
    parts = [f"# {_md(incident.title)}", _md(_status(incident, looked_ns))]
    for section in sections(incident, looked_ns):
        lines = [f"- {_md(line.text)}{_md_link(line.query, base)}" for line in section.lines]
        parts.append(f"## {_md(section.heading)}\n\n" + "\n".join(lines))
    parts += _md_sql(_with_statements(incident, looked_ns, statements or {}))
    return "\n\n".join(parts) + "\n"


def html(
    incident: Incident, looked_ns: int | None = None, base: str = "", statements: Mapping[str, str] | None = None
) -> str:
    """The explanation as a page of its own, without scripts or anything from elsewhere; `statements` as in markdown."""
    body = [f"<h1>{escape(incident.title)}</h1>", f"<p>{escape(_status(incident, looked_ns))}</p>"]
    for section in sections(incident, looked_ns):
        items = "".join(f"<li>{escape(line.text)}{_html_link(line.query, base)}</li>" for line in section.lines)
        body.append(f"<h2>{escape(section.heading)}</h2><ul>{items}</ul>")
    asked = _with_statements(incident, looked_ns, statements or {})
    folded = "".join(f"<h3>{escape(line.text)}</h3><pre>{escape(sql)}</pre>" for line, sql in asked)
    if folded:
        body.append(f"<details><summary>The same questions in SQL</summary>{folded}</details>")
    return _PAGE.format(title=escape(incident.title), body="\n".join(body))


def sections(incident: Incident, looked_ns: int | None = None) -> list[Section]:
    """What all forms say, in order; empty sections are left out. What has no question of its own is answered by the
    replay of the look, where that is kept."""
    whole = f"{API_PREFIX}/incidents/{incident.id}" + ("" if looked_ns is None else "/replay")
    if incident.version == 0:  # nobody was told of it: somebody asked, and its id is the question
        whole = f"{API_PREFIX}/diagnosis?{incident.id}"
    found = [
        *(Section(_cause_heading(cause), _cause_lines(cause, whole)) for cause in incident.causes[:1]),
        Section("What changed", _changes(incident, whole)),
        Section("Symptoms", _symptoms(incident, whole)),
        Section("Who suffers", _impact(incident, whole)),
        *(
            Section(_cause_heading(c), _cause_lines(c, whole))
            for c in incident.causes[1:MAX_CAUSES]
            if c.score >= LIKELY
        ),
        Section("Ruled out", _limited([_ruled_out(one, whole) for one in incident.ruled_out], MAX_RULED_OUT)),
    ]
    return [section for section in found if section.lines]


def symptom(shift: Shift) -> str:
    """One shift in words.

    >>> symptom(Shift("api", "chat", "Server", "latency_p99_ms", 120.0, 540.0, "ms", 1e-9, 812, 0))
    'api chat: P99 latency rose from 120 ms to 540 ms (4.5×) at 1970-01-01 00:00:00 UTC; p < 1e-6, 812 samples'
    """
    name = " ".join(part for part in (shift.service, shift.operation) if part)
    verb = "rose" if shift.after >= shift.before else "fell"
    ratio = f" ({shift.after / shift.before:.3g}×)" if shift.before > 0 and shift.after > 0 else ""
    sure = f"rule {shift.rule}" if shift.rule else _probability(shift.p_value)
    return (
        f"{name}: {MEASURES.get(shift.measure, shift.measure)} {verb} from {amount(shift.before, shift.unit)} "
        f"to {amount(shift.after, shift.unit)}{ratio} at {_moment(shift.onset_ns)}; {sure}, {shift.samples} samples"
    )


def amount(value: float, unit: str) -> str:
    """A value with its unit, as people write it.

    >>> [amount(0.0213, "1"), amount(1840.0, "ms"), amount(12.3456, "{request}/s"), amount(3.0, "By")]
    ['2.13 %', '1.84 s', '12.3 request/s', '3 By']
    """
    if unit == "1":
        return f"{value * 100:.3g} %"
    if unit == "ms" and abs(value) >= 1000:
        return f"{value / 1000:.3g} s"
    return f"{value:.3g} {unit.replace('{', '').replace('}', '')}".rstrip()


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _status(incident: Incident, looked_ns: int | None) -> str:
    if incident.version == 0:
        return f"asked for; {_moment(incident.onset_ns)} to {_moment(incident.last_seen_ns)}, compared with before"
    until = "" if incident.resolved_ns is None else f", resolved {_moment(incident.resolved_ns)}"
    looked = "" if looked_ns is None else f"; diagnosed {_moment(looked_ns)}"
    note = f". {incident.note[:1].upper()}{incident.note[1:]}" if incident.note else ""
    if incident.state is State.RESOLVED and incident.fired_ns is None and not note and GOES_ON not in incident.title:
        note = ". It was over before anybody was told, and is no part of another incident"
    return f"{incident.severity.value}, {incident.state.value}; since {_moment(incident.onset_ns)}{until}{looked}{note}"


def _cause_heading(cause: Cause) -> str:
    if cause.kind is CauseKind.UNKNOWN:
        return "Cause: unknown"
    where = place(cause.kind.value, cause.service, cause.resource, cause.services)
    kind = "" if cause.resource or cause.kind is CauseKind.SERVICE else f" ({cause.kind.value})"
    name = "Cause" if cause.rank == 1 else f"Less likely, {cause.rank}"
    return f"{name}: {where}{kind} — {min(cause.score, MOST_SURE):.0%} sure"


def _cause_lines(cause: Cause, whole: str) -> list[Sentence]:
    said = [e for e in cause.evidence if cause.rank > 1 or e.kind not in CHANGES]
    lines = _limited([Sentence(e.text, e.query or whole) for e in said], MAX_EVIDENCE)
    if cause.share > 0 and not any(e.kind == "attribution" for e in said):
        lines.insert(0, Sentence(f"accounts for {100 * cause.share:.0f} % of the change", whole))
    if len(cause.path) > 1:
        lines.insert(min(1, len(lines)), Sentence("path: " + " → ".join(cause.path), whole))
    lines += [
        Sentence(f"example trace: {t}", f"{API_PREFIX}/traces/{t}") for t in cause.exemplar_trace_ids[:MAX_TRACES]
    ]
    return lines or [Sentence("the evidence is too weak to name one", whole)]


def _changes(incident: Incident, whole: str) -> list[Sentence]:
    """What else was different since the onset: versions, traffic, devices, who asks."""
    first = incident.causes[0].evidence if incident.causes else ()
    said = [Sentence(e.text, e.query or whole) for e in first if e.kind in CHANGES]
    return _limited(list(dict.fromkeys(said)), MAX_EVIDENCE)


def _symptoms(incident: Incident, whole: str) -> list[Sentence]:
    """What users feel first, then down the path to the cause, the largest change of each service first."""
    path = incident.causes[0].path if incident.causes else ()
    place = {service: at for at, service in reversed(list(enumerate(path)))}
    ordered = sorted(incident.symptoms, key=lambda s: (place.get(s.service, len(path)), s.service, -_size(s)))
    return _limited([Sentence(symptom(s), s.query or whole) for s in ordered], MAX_SYMPTOMS)


def _size(shift: Shift) -> float:
    """How large a change is, as the logarithm of a ratio; errors that there were none of before are large."""
    return abs(math.log(max(shift.after, 1e-4) / max(shift.before, 1e-4)))


def _impact(incident: Incident, whole: str) -> list[Sentence]:
    services, requests = incident.impact.services, incident.impact.requests_affected
    more = f" and {len(services) - MAX_SERVICES} more" if len(services) > MAX_SERVICES else ""
    lines = [Sentence(", ".join(services[:MAX_SERVICES]) + more, whole)] if services else []
    return (
        [*lines, Sentence(f"{requests:,} request{'' if requests == 1 else 's'} affected", whole)] if requests else lines
    )


def _ruled_out(one: RuledOut, whole: str) -> Sentence:
    return Sentence(f"{one.service}{' ' + one.resource if one.resource else ''}: {one.because}", one.query or whole)


def _limited(lines: list[Sentence], most: int) -> list[Sentence]:
    return lines if len(lines) <= most else [*lines[:most], Sentence(f"and {len(lines) - most} more", "")]


def _note(query: str, asked: dict[str, int]) -> str:
    return f" [{asked.setdefault(query, len(asked) + 1)}]" if query else ""


def _md_link(query: str, base: str) -> str:
    return f" [⌕]({base}{query.replace('(', '%28').replace(')', '%29')})" if query else ""


def _html_link(query: str, base: str) -> str:
    return f' <a href="{escape(base + query)}" title="the question behind this">⌕</a>' if query else ""


def _with_statements(
    incident: Incident, looked_ns: int | None, statements: Mapping[str, str]
) -> list[tuple[Sentence, str]]:
    """The sentences that are shown and have SQL, each statement once."""
    found: dict[str, tuple[Sentence, str]] = {}
    for section in sections(incident, looked_ns):
        for line in section.lines:
            if sql := statements.get(line.query):
                found.setdefault(sql, (line, sql))
    return list(found.values())


def _md_sql(asked: list[tuple[Sentence, str]]) -> list[str]:
    if not asked:
        return []
    blocks = [part for line, sql in asked for part in (_md(line.text), f"{_fence(sql)}sql\n{sql}\n{_fence(sql)}")]
    return ["<details><summary>The same questions in SQL</summary>", *blocks, "</details>"]


def _fence(sql: str) -> str:
    """Longer than any row of backticks in names."""
    longest = max((len(run) for run in re.findall(r"`+", sql)), default=0)
    return "`" * max(3, longest + 1)


def _plain(line: str) -> str:
    """One line without control characters: names come from telemetry, and a terminal obeys them."""
    return "".join(c if c.isprintable() else " " for c in line)


def _probability(p_value: float) -> str:
    return "p < 1e-6" if p_value < 1e-6 else f"p = {p_value:.2g}"


def _moment(time_ns: int) -> str:
    return rfc3339(time_ns)[:19].replace("T", " ") + " UTC"


_MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\`*[]<>|"} | {"\n": " ", "\r": " "})


def _md(text: str) -> str:
    return text.translate(_MARKUP)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 1.5rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.35rem; }} h2 {{ font-size: 1.05rem; margin-top: 1.5rem; }}
ul {{ padding-left: 1.2rem; }} li {{ overflow-wrap: anywhere; margin: .25rem 0; }}
a {{ text-decoration: none; }}
details {{ margin-top: 1.5rem; }} pre {{ overflow-x: auto; font-size: .8rem; }} h3 {{ font-size: .9rem; }}
</style></head><body>
{body}
</body></html>
"""
