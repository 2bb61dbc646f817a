"""An incident as a text to read on a phone: what, since when, how sure, who suffers, the evidence, what was ruled out.

Names and texts come from telemetry: they are escaped here, and nothing in them can become markup.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from observe.types import Cause, CauseKind, Incident, RuledOut, Shift
from observe.wire import rfc3339

MAX_SYMPTOMS = 5
MAX_CAUSES = 3
MAX_EVIDENCE = 6
MAX_RULED_OUT = 5

MEASURES = {
    "latency_p50_ms": "median latency",
    "latency_p95_ms": "P95 latency",
    "latency_p99_ms": "P99 latency",
    "error_ratio": "error rate",
    "requests_per_s": "traffic",
}


class Section(NamedTuple):
    heading: str
    lines: list[str]


def markdown(incident: Incident) -> str:
    """The explanation in CommonMark."""
    parts = [f"# {_md(incident.title)}", _md(_status(incident))]
    parts += [
        f"## {_md(section.heading)}\n\n" + "\n".join(f"- {_md(line)}" for line in section.lines)
        for section in sections(incident)
    ]
    return "\n\n".join(parts) + "\n"


def html(incident: Incident) -> str:
    """The explanation as a page of its own, without scripts or anything from elsewhere."""
    body = [f"<h1>{escape(incident.title)}</h1>", f"<p>{escape(_status(incident))}</p>"]
    for section in sections(incident):
        items = "".join(f"<li>{escape(line)}</li>" for line in section.lines)
        body.append(f"<h2>{escape(section.heading)}</h2><ul>{items}</ul>")
    return _PAGE.format(title=escape(incident.title), body="\n".join(body))


def sections(incident: Incident) -> list[Section]:
    """What both forms say, in order; empty sections are left out."""
    causes = [Section(_cause_heading(cause), _cause_lines(cause)) for cause in incident.causes[:MAX_CAUSES]]
    found = [
        Section("What changed", _limited([symptom(s) for s in incident.symptoms], MAX_SYMPTOMS)),
        *causes,
        Section("Who suffers", _impact(incident)),
        Section("Ruled out", _limited([_ruled_out(one) for one in incident.ruled_out], MAX_RULED_OUT)),
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


def _status(incident: Incident) -> str:
    until = "" if incident.resolved_ns is None else f", resolved {_moment(incident.resolved_ns)}"
    return f"{incident.severity.value}, {incident.state.value}; since {_moment(incident.onset_ns)}{until}"


def _cause_heading(cause: Cause) -> str:
    if cause.kind is CauseKind.UNKNOWN:
        return "Cause: unknown"
    where = f"{cause.service}, {cause.kind.value} {cause.resource}" if cause.resource else cause.service
    kind = "" if cause.resource or cause.kind is CauseKind.SERVICE else f" ({cause.kind.value})"
    name = "Cause" if cause.rank == 1 else f"Less likely, {cause.rank}"
    return f"{name}: {where}{kind} — {cause.score:.0%} sure"


def _cause_lines(cause: Cause) -> list[str]:
    lines = _limited([evidence.text for evidence in cause.evidence], MAX_EVIDENCE)
    if cause.share > 0:
        lines.insert(0, f"accounts for {cause.share:.0%} of the change")
    if len(cause.path) > 1:
        lines.append("path: " + " → ".join(cause.path))
    if cause.exemplar_trace_ids:
        lines.append(f"example trace: {cause.exemplar_trace_ids[0]}")
    return lines or ["the evidence is too weak to name one"]


def _impact(incident: Incident) -> list[str]:
    services, requests = incident.impact.services, incident.impact.requests_affected
    lines = [", ".join(_limited(list(services), 8))] if services else []
    return [*lines, f"{requests:,} requests affected"] if requests else lines


def _ruled_out(one: RuledOut) -> str:
    return f"{one.service}{' ' + one.resource if one.resource else ''}: {one.because}"


def _limited(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


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
ul {{ padding-left: 1.2rem; }} li {{ overflow-wrap: anywhere; }}
</style></head><body>
{body}
</body></html>
"""
