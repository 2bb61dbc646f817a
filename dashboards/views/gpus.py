"""Every GPU: how busy, how hot, and what holds it back."""

from __future__ import annotations

import time

import streamlit as st

from dashboards import charts
from dashboards.api import client, guarded
from dashboards.ranges import pick
from dashboards.words import moment, ratio, safe, size
from observe.types import Json

REFRESH_S = 10
HISTORY = {
    "SM clock": ("DCGM_FI_DEV_SM_CLOCK", "SM clock (MHz)", ",.4~r"),
    "utilization": ("hw.gpu.utilization", "utilization", "%"),
    "memory": ("hw.gpu.memory.usage", "memory in use (bytes)", ".3~s"),
    "temperature": ("hw.temperature", "temperature (°C)", ".3~r"),
    "power": ("hw.power", "power (W)", ",.3~r"),
}


def show() -> None:
    """The newest readings, and their history."""
    st.title("GPUs")
    client().health()  # one notice for the whole page where the API is away
    _now()
    st.subheader("History")
    what = st.segmented_control("Reading", list(HISTORY), default="SM clock", required=True)
    span = pick("15 min")
    metric, title, format = HISTORY[str(what)]
    body = client().metric(metric, span.from_ns, span.until())
    series = {f"{s['host']} {s['hw_id']}": s["points"] for s in body["series"] if s["hw_id"]}
    if not series:
        st.info(f"Nobody sent {metric} in this time.", icon=":material/sensors_off:")
        return
    shown = dict(list(series.items())[:8])
    st.altair_chart(charts.lines(shown, title, span.axis(), format=format), width="stretch")


@st.fragment(run_every=REFRESH_S)
def _now() -> None:
    guarded(_cards)  # within the fragment: what it raises does not reach the page


def _cards() -> None:
    found = client().gpus()
    if not found:
        st.info("No GPU sent readings in the last two minutes.", icon=":material/sensors_off:")
        return
    st.caption(f"As of {moment(time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))}, refreshed every {REFRESH_S} s")
    columns = st.columns(min(3, len(found)))
    for number, gpu in enumerate(found):
        with columns[number % len(columns)], st.container(border=True):
            _card(gpu)


def _card(gpu: Json) -> None:
    st.markdown(f"**{safe(gpu['hw_id'])}** on {safe(gpu['host'] or 'an unnamed host')}")
    if gpu["model"]:
        st.caption(safe(gpu["model"]))
    if gpu["throttled"]:
        st.badge("throttled: " + ", ".join(gpu["throttle_reasons"]), color="red", icon=":material/speed:")
    elif gpu["throttled"] is False:
        st.badge("full speed", color="green", icon=":material/speed:")
    if gpu["last_xid"]:
        st.badge(f"XID {gpu['last_xid']:.0f}", color="orange", icon=":material/warning:")
    _bar("utilization", gpu["utilization_ratio"], ratio(gpu["utilization_ratio"]))
    used, limit = size(gpu["memory_used_bytes"]), size(gpu["memory_limit_bytes"])
    _bar("memory", gpu["memory_utilization_ratio"], f"{used} of {limit}")
    figures = {
        "SM clock": (gpu["sm_clock_mhz"], "MHz"),
        "temperature": (gpu["temperature_celsius"], "°C"),
        "power": (gpu["power_w"], "W"),
    }
    st.caption(
        " · ".join(f"{name} {value:,.0f} {unit}" for name, (value, unit) in figures.items() if value is not None)
    )


def _bar(name: str, share: float | None, text: str) -> None:
    if share is not None:
        st.progress(min(1.0, max(0.0, share)), text=f"{name}: {text}")
