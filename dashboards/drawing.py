"""Graphs in the DOT language: the service map, and the path from a symptom to its cause. Pure text."""

from __future__ import annotations

import math

from dashboards.words import GREY, HEALTH_COLOURS, VERMILLION, milliseconds, rate, ratio
from observe.types import Json

_SHAPES = {
    "service": "box", "database": "cylinder", "external": "component", "topic": "cds",
    "instance": "tab", "host": "box3d", "gpu": "note",
}  # fmt: skip
PLACES = ("instance", "host", "gpu")
_HEAD = (
    'digraph {{ rankdir={direction}; bgcolor="transparent"; nodesep=0.35; ranksep=0.8; '
    'node [fontname="sans-serif", fontsize=11, style="rounded,filled", color="{grey}", fontcolor="#111111", '
    'margin="0.16,0.09"]; edge [fontname="sans-serif", fontsize=9, color="{grey}", fontcolor="{grey}", '
    "arrowsize=0.7];\n"
)
# Light fills, so that dark text is read on every ground; the full colour is the border.
_FILLS = {"ok": "#D5F0E6", "degraded": "#FBE8C0", "cause": "#F9CFB2", "unknown": "#E4E6EA"}
_MARKS = {"cause": "⚠ cause", "degraded": "degraded"}
BAD_ERROR_RATIO = 0.05


def service_map(graph: Json, *, places: bool = False) -> str:
    """All nodes with their figures, coloured by health; edges as wide as they are busy. `places` adds what services
    run on. Where a topic is known, messages are drawn through it."""
    sent = {e["callee"] for e in graph["edges"] if e["connection"] == "topic"}
    taken = {(e["caller"], e["callee"]) for e in graph["edges"] if e["connection"] == "topic"}
    through = {callee for topic, callee in taken if topic in sent}
    edges = [e for e in graph["edges"] if e["connection"] not in ("messaging", "link") or e["callee"] not in through]
    busiest = max((edge["calls_per_s"] for edge in edges), default=1.0) or 1.0
    called = [node for node in graph["nodes"] if node["kind"] not in (*PLACES, "operation")]
    lines = [_node(node) for node in called]
    lines += [_edge(edge, busiest) for edge in edges]
    if places:
        lines += _places(graph)
    return _HEAD.format(direction="LR", grey=GREY) + "\n".join(lines) + "\n}"


def path(services: list[str], cause: Json) -> str:
    """The way from the symptom (left) to the cause (right)."""
    last = len(services) - 1
    lines = []
    for number, name in enumerate(services):
        health, mark = ("cause", "cause") if number == last else ("degraded", "symptom" if number == 0 else "")
        label = _label([name, f"⚠ {mark}" if number == last else mark])
        lines.append(f"n{number} [label={label}, shape=box, {_colours(health)}];")
    if cause["resource"]:
        label = _label([cause["resource"], cause["kind"]])
        lines.append(f"r [label={label}, shape=component, {_colours('cause')}]; n{last} -> r [style=dashed];")
    lines += [f"n{i} -> n{i + 1};" for i in range(last)]
    return _HEAD.format(direction="LR", grey=GREY) + "\n".join(lines) + "\n}"


def quoted(text: str) -> str:
    """A DOT string: nothing in it can end it.

    >>> print(quoted('a "b" \\\\ c'))
    "a \\"b\\" \\\\ c"
    """
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label(lines: list[str]) -> str:
    return '"' + "\\n".join(quoted(line)[1:-1] for line in lines if line) + '"'


def _colours(health: str) -> str:
    width = 2.5 if health == "cause" else 1.2
    return f'fillcolor="{_FILLS[health]}", color="{HEALTH_COLOURS[health]}", penwidth={width}'


def _node(node: Json) -> str:
    figures = ""
    if node["requests"]:
        figures = f"{rate(node['requests_per_s'])} · P99 {milliseconds(node['latency_p99_ms'])}"
    errors = f"{ratio(node['error_ratio'])} errors" if node["error_ratio"] else ""
    label = _label([node["name"], figures, errors, _MARKS.get(node["health"], "")])
    shape = _SHAPES.get(node["kind"], "box")
    return f"{quoted(node['name'])} [label={label}, shape={shape}, {_colours(node['health'])}];"


def _places(graph: Json) -> list[str]:
    """Hosts and GPUs below the services; the instances of a service are one line each in a label of their own."""
    known = {node["id"]: node for node in graph["nodes"]}
    lines = []
    for node in graph["nodes"]:
        if node["kind"] in PLACES:
            label = _label([node["name"], node["kind"], _MARKS.get(node["health"], "")])
            health = node["health"] if node["health"] == "cause" else "unknown"
            lines.append(f"{quoted(node['id'])} [label={label}, shape={_SHAPES[node['kind']]}, {_colours(health)}];")
    for run in graph["runs_on"]:
        upper, lower = known.get(run["from"]), known.get(run["to"])
        if upper is None or lower is None:
            continue
        name = upper["name"] if upper["kind"] not in PLACES else upper["id"]
        lines.append(f"{quoted(name)} -> {quoted(lower['id'])} [style=dotted, arrowhead=none];")
    return lines


def _edge(edge: Json, busiest: float) -> str:
    bad = (edge["error_ratio"] or 0.0) > BAD_ERROR_RATIO
    figures = f"{rate(edge['calls_per_s'])} · P99 {milliseconds(edge['latency_p99_ms'])}"
    label = _label([figures, f"{ratio(edge['error_ratio'])} errors" if bad else ""])
    width = 1 + 2.5 * math.sqrt(edge["calls_per_s"] / busiest)
    style = "dashed" if edge["connection"] in ("messaging", "link", "topic") else "solid"
    colour = f', color="{VERMILLION}", fontcolor="{VERMILLION}"' if bad else ""
    ends = f"{quoted(edge['caller'])} -> {quoted(edge['callee'])}"
    return f"{ends} [label={label}, penwidth={width:.2f}, style={style}{colour}];"
