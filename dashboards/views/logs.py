"""Log records: of a service, of a trace, of a text; how many of which severity, and when."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from dashboards import pages
from dashboards.api import client
from dashboards.ranges import pick
from dashboards.words import moment, safe
from observe.types import Json

ANY = "any"
SEVERITIES = ["any", "debug", "info", "warn", "error", "fatal"]
LIMIT = 200
SHOWN = 2000
"""Characters of a body: a stack trace is read, a dump is not."""
COLOURS = {"ERROR": "red", "FATAL": "red", "WARN": "orange", "WARNING": "orange"}


def show() -> None:
    """Search, also of `?trace=ID` or `?service=NAME`."""
    st.title("Logs")
    span = pick("15 min")
    given = st.query_params
    services = [ANY, *(s["service"] for s in client().services(span.from_ns, span.until()))]
    wanted = given.get("service", ANY)
    services += [wanted] if wanted not in services else []
    columns = st.columns([2, 2, 4, 3], vertical_alignment="bottom")
    service = columns[0].selectbox("Service", services, index=services.index(wanted))
    severity = columns[1].selectbox("Severity, or worse", SEVERITIES)
    text = columns[2].text_input("Contains", placeholder="part of the message, in any case")
    trace = columns[3].text_input("Trace", value=given.get("trace", ""), placeholder="32 hex digits")
    found = client().logs(
        from_ns=span.from_ns,
        to_ns=span.to_ns,
        service="" if service == ANY else str(service),
        trace_id=trace.strip(),
        text=text.strip(),
        severity="" if severity == ANY else str(severity),
        limit=LIMIT,
    )
    if not found:
        st.info("No log records match.", icon=":material/search_off:")
        return
    counts = Counter(record["severity"] or "–" for record in found)
    more = f", the newest {LIMIT} of them" if len(found) == LIMIT else ""
    st.caption(f"{len(found)} records{more} · " + " · ".join(f"{safe(name)} {n}" for name, n in counts.most_common()))
    for number, record in enumerate(found):
        _record(record, number)


def _record(record: Json, number: int) -> None:
    colour = COLOURS.get(record["severity"].upper())
    level = f":{colour}[{safe(record['severity'])}]" if colour else safe(record["severity"] or "–")
    first = safe(record["body"].split("\n", 1)[0][:160])
    with st.expander(f"{moment(record['at'])[11:19]} · {level} · **{safe(record['service'])}** · {first}"):
        st.code(record["body"][:SHOWN] or "(empty)", language=None, wrap_lines=True)
        known = record["attributes"] | {f"resource {key}": value for key, value in record["resource"].items()}
        if known:
            st.json(known, expanded=False)
        if record["trace_id"]:
            pages.link(
                "traces", f"trace {record['trace_id'][:12]}…", icon=":material/timeline:", trace=record["trace_id"]
            )
        st.caption(f"{moment(record['at'])} · record {number + 1}")
