"""Silences: what nobody is told about, until when; made and ended here."""

from __future__ import annotations

import time

import streamlit as st

from dashboards.api import client
from dashboards.ranges import SECOND_NS
from dashboards.words import moment, nanoseconds, safe
from observe.client import BadRecord
from observe.types import Json

LENGTHS_S = {"1 h": 3600, "4 h": 4 * 3600, "1 day": 86_400, "1 week": 7 * 86_400}


def show() -> None:
    """The silences that have not ended, and a form for another."""
    st.title("Silences")
    st.caption("While a service is silenced its incidents are still found and listed here; only receivers stay quiet.")
    _form()
    found = client().silences()
    if not found:
        st.info("Nothing is silenced.", icon=":material/notifications_active:")
        return
    for silence in sorted(found, key=lambda s: s["ends_at"]):
        _silence(silence)


def _form() -> None:
    services = [s["service"] for s in client().services()]
    with st.form("silence", clear_on_submit=True):
        left, middle, right = st.columns([3, 4, 3], vertical_alignment="bottom")
        service = left.selectbox(
            "Service", services, index=None, accept_new_options=True, placeholder="a name, or a pattern like llm-*"
        )
        comment = middle.text_input("Why", placeholder="who asked, and what for", max_chars=500)
        length = right.segmented_control("For", list(LENGTHS_S), default="1 h", required=True)
        if st.form_submit_button("Silence", icon=":material/notifications_off:"):
            if not service:
                st.warning("Choose a service, or write a pattern; * is all of them.")
                return
            client().silence(str(service), time.time_ns() + LENGTHS_S[str(length)] * SECOND_NS, comment)
            st.toast(f"{safe(str(service))} is silenced.")


def _silence(silence: Json) -> None:
    left_s = max(0, nanoseconds(silence["ends_at"]) // SECOND_NS - time.time_ns() // SECOND_NS)
    left = f"{left_s // 3600} h {left_s % 3600 // 60} min" if left_s >= 3600 else f"{left_s // 60} min"
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        reason = f" — {safe(silence['comment'])}" if silence["comment"] else ""
        st.markdown(f"**{safe(silence['service'])}**{reason}  \n{left} left, until {moment(silence['ends_at'])}")
        if st.button("End now", key=f"end {silence['id']}", icon=":material/notifications_active:"):
            try:
                client().end_silence(silence["id"])
            except BadRecord as error:  # somebody else was faster
                st.toast(safe(str(error)))
            st.rerun()
