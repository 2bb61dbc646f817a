"""One service over time: latency, traffic, errors, and its operations."""

from __future__ import annotations

import streamlit as st

from dashboards import charts, pages
from dashboards.api import client
from dashboards.ranges import Span, pick
from dashboards.words import SKY, VERMILLION, milliseconds, rate, ratio
from observe.types import Json

ALL = "all operations"


def show() -> None:
    """The service of `?service=`, or the first one."""
    st.title("Service")
    span = pick("15 min")
    services = {s["service"]: s for s in client().services(span.from_ns, span.until())}
    if not services:
        st.info("No service sent spans in this time.", icon=":material/sensors_off:")
        return
    wanted = st.query_params.get("service", "")
    names = sorted({*services, wanted} - {""})
    left, right = st.columns(2)
    name = left.selectbox("Service", names, index=names.index(wanted) if wanted else 0, key="service_name")
    st.query_params["service"] = name
    service = services.get(name)
    if service is None:
        st.info("This service sent no spans in this time; choose a longer range.", icon=":material/sensors_off:")
        return
    operations = list(dict.fromkeys(o["operation"] for o in service["operations"]))
    operation = right.selectbox("Operation", [ALL, *operations])
    _figures(service)
    _charts(name, "" if operation == ALL else operation, span)
    _operations(service)
    with st.container(horizontal=True):
        pages.link("traces", "Traces of this service", icon=":material/waterfall_chart:", service=name)


def _figures(service: Json) -> None:
    columns = st.columns(5)
    for column, (label, text) in zip(
        columns,
        {
            "traffic": rate(service["requests_per_s"]),
            "errors": ratio(service["error_ratio"]),
            "P50": milliseconds(service["latency_p50_ms"]),
            "P95": milliseconds(service["latency_p95_ms"]),
            "P99": milliseconds(service["latency_p99_ms"]),
        }.items(),
        strict=True,
    ):
        column.metric(label, text, border=True)
    known = {"version": service["versions"], "instance": service["instances"], "host": service["hosts"]}
    st.caption(" · ".join(f"{key}: {', '.join(names[:6])}" for key, names in known.items() if names))


def _charts(service: str, operation: str, span: Span) -> None:
    windows = client().windows(service, operation, span.from_ns, span.until())["windows"]
    if not windows:
        st.info("No requests in this time.")
        return
    axis = span.axis()
    st.altair_chart(charts.latency(windows, axis), width="stretch")
    left, right = st.columns(2)
    traffic = charts.single(windows, "requests_per_s", "requests per second (1/s)", axis, colour=SKY)
    left.altair_chart(traffic, width="stretch")
    failing = charts.single(windows, "error_ratio", "share of requests that fail", axis, colour=VERMILLION, format="%")
    right.altair_chart(failing, width="stretch")


def _operations(service: Json) -> None:
    st.subheader("Operations")
    table = [
        {
            "operation": o["operation"],
            "kind": o["kind"],
            "requests (1/s)": o["requests_per_s"],
            "errors": o["error_ratio"],
            "P50 (ms)": o["latency_p50_ms"],
            "P95 (ms)": o["latency_p95_ms"],
            "P99 (ms)": o["latency_p99_ms"],
        }
        for o in service["operations"]
    ]
    st.dataframe(
        table,
        hide_index=True,
        column_config={"errors": st.column_config.NumberColumn(format="percent")}
        | {name: st.column_config.NumberColumn(format="%.1f") for name in ("P50 (ms)", "P95 (ms)", "P99 (ms)")},
    )
