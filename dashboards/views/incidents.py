"""What is wrong now, worst first, and what was."""

from __future__ import annotations

import time

import streamlit as st

from dashboards import pages
from dashboards.api import client, guarded
from dashboards.words import SEVERITY_BADGES, STATE_ICONS, ago, moment, nanoseconds, safe, sure, where
from observe.types import Json

REFRESH_S = 5
HOUR_NS = 3600 * 10**9
PAST_HOURS = {"1 h": 1, "24 h": 24, "7 days": 168, "30 days": 720}


def show() -> None:
    """Links in alerts come here with `?incident=` or `?service=` and are sent on."""
    for page in ("incident", "service"):
        if page in st.query_params:
            pages.go(page, **{page: st.query_params[page]})
    st.title("Incidents")
    client().health()  # one notice for the whole page where the API is away
    _open()
    st.subheader("Resolved")
    hours = PAST_HOURS[str(st.segmented_control("In the last", list(PAST_HOURS), default="24 h", required=True))]
    _resolved(hours)


@st.fragment(run_every=REFRESH_S)
def _open() -> None:
    # Within the fragment: what it raises does not reach the page.
    guarded(_open_incidents)


def _open_incidents() -> None:
    now_ns = time.time_ns()
    found = [i for i in client().incidents(from_ns=now_ns - HOUR_NS) if i["state"] != "resolved"]
    st.caption(f"As of {moment(_now(now_ns))}, refreshed every {REFRESH_S} s")
    if not found:
        st.success("No open incidents: everything looks normal.", icon=":material/check_circle:")
    for incident in found:
        _card(incident, now_ns)


def _resolved(hours: int) -> None:
    now_ns = time.time_ns()
    found = client().incidents(state="resolved", from_ns=now_ns - hours * HOUR_NS)
    if not found:
        st.info("No resolved incidents in this time.", icon=":material/history:")
    for incident in found:
        _card(incident, now_ns)


def _card(incident: Json, now_ns: int) -> None:
    with st.container(border=True):
        left, right = st.columns([5, 1], vertical_alignment="center")
        with left:
            with st.container(horizontal=True, gap="small"):
                badges(incident)
            st.markdown(f"**{safe(incident['title'])}**")
            st.caption(_line(incident, now_ns))
        with right:
            pages.link("incident", "Open", icon=":material/arrow_forward:", incident=incident["id"])


def badges(incident: Json) -> None:
    """Severity and state."""
    state = incident["state"]
    st.badge(incident["severity"], color=SEVERITY_BADGES[incident["severity"]])  # type: ignore[arg-type]
    st.badge(state, color="green" if state == "resolved" else "gray", icon=STATE_ICONS.get(state))


def _line(incident: Json, now_ns: int) -> str:
    if incident["resolved_at"]:
        seconds = (nanoseconds(incident["resolved_at"]) - nanoseconds(incident["onset_at"])) // 10**9
        since = f"{moment(incident['onset_at'])}, lasted {seconds // 60} min {seconds % 60} s"
    else:
        since = f"since {moment(incident['onset_at'])} ({ago(incident['onset_at'], now_ns)})"
    parts = [since]
    if incident["causes"]:
        cause = incident["causes"][0]
        parts.append(f"cause: {safe(where(cause))}" + (f" ({sure(cause)} sure)" if cause["score"] else ""))
    affected = incident["impact"]["requests_affected"]
    return " · ".join([*parts, f"{affected:,} requests affected"] if affected else parts)


def _now(now_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_ns / 1e9))
