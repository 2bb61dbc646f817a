"""Who calls whom, and how everyone is, at a chosen time."""

from __future__ import annotations

import streamlit as st

from dashboards import drawing, pages
from dashboards.api import client
from dashboards.ranges import pick_moment
from dashboards.words import HEALTH_COLOURS, milliseconds, moment, safe
from observe.types import Json

SPANS_S = {"1 min": 60, "2 min": 120, "5 min": 300, "15 min": 900}
MEANINGS = {
    "ok": "as usual",
    "degraded": "suffers or fails",
    "cause": "cause of an open incident",
    "unknown": "not measured itself",
}


def show() -> None:
    """The graph of now, or of `?at=`."""
    st.title("Service map")
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        at_ns = pick_moment("At (UTC)")
    with right:
        span = st.segmented_control("Calls of the last", list(SPANS_S), default="2 min", required=True)
    graph = client().graph(at_ns, span_s=SPANS_S[str(span)], detail="places")
    st.caption(f"{moment(graph['from'])} to {moment(graph['at'])}")
    if not graph["nodes"]:
        st.info("No spans at this time.", icon=":material/sensors_off:")
        return
    places = st.toggle("Instances, hosts and GPUs", help="what services run on, by instance, host and hw.id")
    _legend()
    st.graphviz_chart(drawing.service_map(graph, places=places), width="stretch")
    _completeness(graph["completeness"])
    _calls(graph)
    with st.container(horizontal=True, gap="small"):
        for node in graph["nodes"]:
            if node["kind"] == "service":
                pages.link("service", node["name"], icon=":material/monitoring:", service=node["name"])


def _legend() -> None:
    dots = " &nbsp; ".join(
        f'<span style="color:{HEALTH_COLOURS[health]}">⬤</span> {meaning}' for health, meaning in MEANINGS.items()
    )
    st.html(
        f'<div style="font-size:0.85rem;opacity:0.85">{dots} &nbsp; ▭ service &nbsp; ⛁ database &nbsp; ▷ topic</div>'
    )


def _completeness(known: Json) -> None:
    """What the traces do not show: a graph with holes must say so."""
    if not known["spans"]:
        return
    part = "" if known["one_of"] == 1 else f", counted in one trace of {known['one_of']}"
    if not known["orphan_spans"] and not known["rootless_traces"]:
        st.caption(f"Traces are whole: {known['spans']:,} spans of {known['traces']:,} traces have all parents{part}.")
        return
    worst = ", ".join(
        f"{safe(s['service'])} {s['orphan_spans']:,}"
        for s in sorted(known["services"], key=lambda s: -s["orphan_spans"])[:5]
    )
    st.warning(
        f"Parts are missing: the parents of {known['orphan_spans']:,} of {known['spans']:,} spans never came "
        f"({worst}), and {known['rootless_traces']:,} of {known['traces']:,} traces have no root{part}. "
        "Calls between the missing parts are not in this graph.",
        icon=":material/link_off:",
    )


def _calls(graph: Json) -> None:
    table = [
        {
            "caller": e["caller"],
            "callee": e["callee"],
            "connection": e["connection"],
            "calls (1/s)": e["calls_per_s"],
            "errors": e["error_ratio"],
            "P99 (ms)": e["latency_p99_ms"],
            "caller waits, mean": milliseconds(e["client_mean_ms"]),
            "callee works, mean": milliseconds(e["server_mean_ms"]),
            "on the way, mean": milliseconds(e["way_mean_ms"]),
        }
        for e in graph["edges"]
    ]
    with st.expander("Calls as a table"):
        st.dataframe(
            table,
            hide_index=True,
            column_config={
                "errors": st.column_config.NumberColumn(format="percent"),
                "P99 (ms)": st.column_config.NumberColumn(format="%.1f"),
            },
        )
