"""Search for traces; one trace as a waterfall."""

from __future__ import annotations

import streamlit as st

from dashboards import waterfall
from dashboards.api import client
from dashboards.ranges import pick
from dashboards.words import milliseconds, moment, safe
from observe.client import BadRecord
from observe.types import Json

ANY = "any"


def show() -> None:
    """Search, or the trace of `?trace=ID`."""
    st.title("Traces")
    if st.query_params.get("trace"):
        _one(st.query_params["trace"])
        return
    span = pick("15 min")
    services = [ANY, *(s["service"] for s in client().services(span.from_ns, span.until()))]
    columns = st.columns([2, 3, 2, 3, 2], vertical_alignment="bottom")
    service = columns[0].selectbox("Service", services, index=_given(services))
    operation = columns[1].text_input("Operation", placeholder="exact name, e.g. POST /chat")
    slower = columns[2].number_input("Slower than (ms)", min_value=0.0, value=0.0, step=50.0)
    attribute = columns[3].text_input("Attribute", placeholder="key=value")
    order = columns[4].selectbox("Order", ["newest", "slowest"])
    errors = st.checkbox("Only with errors")
    if attribute and not attribute.partition("=")[1]:
        st.info("An attribute is searched as key=value, for example gen_ai.request.model=llama.")
        return
    key, _, value = attribute.partition("=")
    found = client().traces(
        service="" if service == ANY else service,
        operation=operation.strip(),
        min_duration_ms=slower,
        errors=errors,
        attributes={key.strip(): value.strip()} if key else {},
        order=order,
        from_ns=span.from_ns,
        to_ns=span.to_ns,
        limit=100,
    )
    _list(found)


def show_trace(trace: Json) -> None:
    """The waterfall of one trace, and the attributes of the span that is chosen below it."""
    spans = trace["spans"]
    services = len({span["service"] for span in spans})
    errors = sum(span["status"] == "Error" for span in spans)
    st.caption(
        f"trace {safe(trace['trace_id'])} · {moment(trace['start_at'])} · {milliseconds(trace['duration_ms'])} · "
        f"{len(spans)} spans of {services} services" + (f" · {errors} with errors" if errors else "")
    )
    st.altair_chart(waterfall.chart(trace), width="stretch")
    if len(spans) > waterfall.MAX_ROWS:
        st.caption(f"The first {waterfall.MAX_ROWS} of {len(spans)} spans.")
    with st.expander("Attributes, events and links of a span"):
        ordered = waterfall.rows(trace)
        number = st.selectbox("Span", range(len(ordered)), format_func=lambda i: _span_name(ordered[i]))
        _details(ordered[number])


def _given(services: list[str]) -> int:
    wanted = st.query_params.get("service", ANY)
    return services.index(wanted) if wanted in services else 0


def _one(trace_id: str) -> None:
    try:
        show_trace(client().trace(trace_id))
    except BadRecord as error:
        st.info(safe(str(error)), icon=":material/search_off:")


def _list(found: list[Json]) -> None:
    if not found:
        st.info("No trace meets these conditions in this time.", icon=":material/search_off:")
        return
    table = [
        {
            "start": moment(t["start_at"]),
            "service": t["service"],
            "operation": t["operation"],
            "duration (ms)": t["duration_ms"],
            "spans": t["spans"],
            "errors": t["errors"],
            "services": ", ".join(t["services"]),
        }
        for t in found
    ]
    st.caption(f"{len(found)} traces; choose a row for its waterfall")
    event = st.dataframe(
        table,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_config={"duration (ms)": st.column_config.NumberColumn(format="%.1f")},
        height=min(420, 38 * (len(table) + 1)),
    )
    chosen = event["selection"]["rows"] if event is not None else []
    show_trace(client().trace(found[chosen[0] if chosen else 0]["trace_id"]))


def _span_name(span: Json) -> str:
    return f"{span['service']} · {span['operation']} · {milliseconds(span['duration_ms'])}"


def _details(span: Json) -> None:
    left, right = st.columns(2)
    with left:
        st.caption("span")
        st.json(
            {"kind": span["kind"], "status": span["status"], "message": span["status_message"]} | span["attributes"]
        )
    with right:
        st.caption("resource")
        st.json(span["resource"], expanded=False)
        if span["events"]:
            st.caption("events")
            st.json(span["events"])
        if span["links"]:
            st.caption("links")
            st.json(span["links"])
