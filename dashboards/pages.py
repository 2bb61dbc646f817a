"""Which pages there are, and the links between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st


def shown() -> list[Any]:
    """The pages in the order of the menu; the incident page is reached from the list and from links in alerts."""
    from dashboards.views import gpus, incident, incidents, logs, service, service_map, silences, slos, traces

    known: list[tuple[str, Callable[[], None], str, str]] = [
        ("incidents", incidents.show, "Incidents", ":material/notifications_active:"),
        ("incident", incident.show, "Incident", ":material/troubleshoot:"),
        ("map", service_map.show, "Service map", ":material/hub:"),
        ("service", service.show, "Service", ":material/monitoring:"),
        ("traces", traces.show, "Traces", ":material/waterfall_chart:"),
        ("logs", logs.show, "Logs", ":material/article:"),
        ("slos", slos.show, "Objectives", ":material/flag:"),
        ("gpus", gpus.show, "GPUs", ":material/memory:"),
        ("silences", silences.show, "Silences", ":material/notifications_off:"),
    ]
    pages = {
        path: st.Page(
            show,
            title=title,
            icon=icon,
            url_path=path,
            default=path == "incidents",
            visibility="hidden" if path == "incident" else "visible",
        )
        for path, show, title, icon in known
    }
    st.session_state["pages"] = pages
    return list(pages.values())


def go(path: str, **query: str) -> None:
    """Opens another page."""
    st.switch_page(st.session_state["pages"][path], query_params=query)


def link(path: str, label: str, *, icon: str | None = None, **query: str) -> None:
    """A link to another page; `label` is escaped."""
    st.page_link(st.session_state["pages"][path], label=label, icon=icon, query_params=query)
