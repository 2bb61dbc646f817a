"""A trace as a waterfall: spans in the order of the calls, each where it happened in time."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import altair as alt

from dashboards.charts import Chart, inline
from dashboards.words import GREY, SERVICE_COLOURS, VERMILLION, milliseconds
from observe.types import Json

MAX_ROWS = 150
ROW_HEIGHT = 26
AROUND = 110
"""Pixels that legend and axis take of the height."""
MAX_LABEL = 58
CHARACTER = 6.4
"""Pixels that a character of a label takes, generously."""


def rows(trace: Json) -> list[Json]:
    """The spans in the order of the calls (parents before children, earlier before later) with depth and self time.

    A span whose parent is not stored stands at the top, and so does one whose parents form a circle.
    """
    children: dict[str, list[Json]] = defaultdict(list)
    known = {span["span_id"] for span in trace["spans"]}
    for span in trace["spans"]:
        children[span["parent_span_id"] if span["parent_span_id"] in known else ""].append(span)
    ordered: list[Json] = []
    seen: set[str] = set()
    # After the roots come the spans that none of them leads to.
    for top in [*sorted(children[""], key=_start), *sorted(trace["spans"], key=_start)]:
        waiting = [(top, 0)]
        while waiting:
            span, depth = waiting.pop()
            if span["span_id"] in seen:
                continue
            seen.add(span["span_id"])
            below = children[span["span_id"]]
            ordered.append(span | {"depth": depth, "self_ms": self_ms(span, below)})
            waiting.extend((child, depth + 1) for child in sorted(below, key=_start, reverse=True))
    return ordered


def self_ms(span: Json, children: list[Json]) -> float:
    """Duration minus the union of the children's time within it, in ms."""
    begin, end = span["offset_ms"], span["offset_ms"] + span["duration_ms"]
    covered, reached = 0.0, begin
    for child in sorted(children, key=_start):
        start = max(reached, child["offset_ms"])
        stop = min(end, child["offset_ms"] + child["duration_ms"])
        covered += max(0.0, stop - start)
        reached = max(reached, stop)
    return float(span["duration_ms"] - covered)


def chart(trace: Json) -> Chart:
    """The first MAX_ROWS spans as bars; spans with an error have a red edge and a mark."""
    spans = rows(trace)[:MAX_ROWS]
    services = list(dict.fromkeys(span["service"] for span in spans))
    values = [_bar(number, span) for number, span in enumerate(spans)]
    width = min(MAX_LABEL, max((len(value["label"]) for value in values), default=0)) * CHARACTER
    base = alt.Chart(inline(values)).encode(
        y=alt.Y(
            "label:N",
            sort=[value["label"] for value in values],
            title=None,
            axis=alt.Axis(
                labelExpr="split(datum.label, '\\u0000')[1]",
                labelAlign="left",
                labelPadding=width,
                labelLimit=width,
                ticks=False,
                domain=False,
            ),
        )
    )
    longest = max((value["end_ms"] for value in values), default=1.0)
    x = alt.X(
        "offset_ms:Q",
        title="since the start of the trace (ms)",
        scale=alt.Scale(domain=[0, longest * 1.12], nice=False),  # room for the last duration
        axis=alt.Axis(grid=True, tickCount=8),
    )
    bars = base.mark_bar(height=ROW_HEIGHT - 10, cornerRadius=2).encode(
        x=x,
        x2="end_ms:Q",
        color=alt.Color(
            "service:N",
            title=None,
            scale=alt.Scale(domain=services, range=list(SERVICE_COLOURS)),
            legend=alt.Legend(orient="top", columns=6),
        ),
        stroke=alt.condition("datum.error", alt.value(VERMILLION), alt.value("transparent")),
        strokeWidth=alt.value(2.5),
        tooltip=[
            alt.Tooltip("service:N"),
            alt.Tooltip("operation:N"),
            alt.Tooltip("kind:N"),
            alt.Tooltip("duration:N"),
            alt.Tooltip("own:N", title="of it its own"),
            alt.Tooltip("status:N"),
        ],
    )
    text = base.mark_text(align="left", dx=5, color=GREY, fontSize=11).encode(x=alt.X("end_ms:Q"), text="note:N")
    return alt.layer(bars, text).properties(height=AROUND + ROW_HEIGHT * len(values))


def _bar(number: int, span: Json) -> dict[str, Any]:
    # Blank, but no white space, which Vega would cut off at the front.
    name = "\u2800" * 2 * min(span["depth"], 12) + f"{span['service']} · {span['operation']}"
    erred = span["status"] == "Error"
    # Vega sorts and joins by the text, so equal names need a number, which the axis then hides.
    label = f"{number}\u0000{name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + '…'}"
    return {
        "label": label,
        "service": span["service"],
        "operation": span["operation"],
        "kind": span["kind"],
        "offset_ms": span["offset_ms"],
        "end_ms": span["offset_ms"] + span["duration_ms"],
        "duration": milliseconds(span["duration_ms"]),
        "own": milliseconds(span["self_ms"]),
        "status": f"{span['status']} {span['status_message']}".strip(),
        "error": erred,
        "note": ("✗ " if erred else "") + milliseconds(span["duration_ms"]),
    }


def _start(span: Json) -> tuple[float, str]:
    return span["offset_ms"], span["span_id"]
