"""One incident: what changed and since when, the way to its cause, how sure that is, who suffers, and an example."""

from __future__ import annotations

import time

import streamlit as st

from dashboards import charts, drawing, pages
from dashboards.api import client, guarded
from dashboards.ranges import SECOND_NS, Span
from dashboards.views.incidents import badges
from dashboards.views.traces import show_trace
from dashboards.words import SKY, VERMILLION, ago, amount, moment, nanoseconds, safe, sure, where
from observe.client import BadRecord
from observe.types import Json
from observe.words import MEASURES

REFRESH_S = 10
BEFORE_NS, AFTER_NS = 900 * SECOND_NS, 120 * SECOND_NS
LONGEST_NS = 24 * 3600 * SECOND_NS - BEFORE_NS - AFTER_NS


def show() -> None:
    """The incident of `?incident=ID`."""
    incident_id = st.query_params.get("incident", "")
    if not incident_id:
        st.info("No incident chosen.", icon=":material/info:")
        pages.link("incidents", "All incidents", icon=":material/arrow_back:")
        return
    pages.link("incidents", "All incidents", icon=":material/arrow_back:")
    try:
        incident = client().incident(incident_id)
    except BadRecord as error:
        st.info(safe(str(error)), icon=":material/search_off:")
        return
    # A resolved incident does not change any more; an open one is looked at again and again.
    refresh = None if incident["state"] == "resolved" else REFRESH_S

    @st.fragment(run_every=refresh)
    def body() -> None:
        guarded(lambda: _incident(client().incident(incident_id)))

    body()
    _check(incident)
    traces = [trace for cause in incident["causes"] for trace in cause["exemplar_trace_ids"]]
    if traces:
        _example(list(dict.fromkeys(traces)))


def _incident(incident: Json) -> None:
    with st.container(horizontal=True, gap="small"):
        badges(incident)
    st.header(safe(incident["title"]))
    st.caption(_since(incident))
    if incident.get("note"):
        st.info(safe(incident["note"]), icon=":material/event_repeat:")
    _headline(incident)
    if incident["symptoms"]:
        _symptoms(incident)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _causes(incident)
    with right:
        _impact(incident)
        _ruled_out(incident)


def _since(incident: Json) -> str:
    now_ns = time.time_ns()
    text = f"since {moment(incident['onset_at'])} ({ago(incident['onset_at'], now_ns)} ago)"
    if incident["resolved_at"]:
        untold = "" if incident["fired_at"] else " · nobody was told"
        return f"{text} · resolved {moment(incident['resolved_at'])}{untold}"
    return f"{text} · last seen {ago(incident['last_seen_at'], now_ns)} ago"


def _headline(incident: Json) -> None:
    first = incident["symptoms"][0] if incident["symptoms"] else None
    cause = incident["causes"][0] if incident["causes"] else None
    columns = st.columns(4)
    if first:
        name = MEASURES.get(first["measure"], first["measure"])
        change = _change(first)
        columns[0].metric(
            f"{name} of {first['service']}",
            amount(first["after"], first["unit"]),
            f"{change} from {amount(first['before'], first['unit'])}",
            delta_color="inverse",
            border=True,
        )
    if cause:
        columns[1].metric("first cause", where(cause) if cause["kind"] == "unknown" else cause["service"], border=True)
        columns[2].metric("confidence", sure(cause), border=True)
    columns[3].metric("requests affected", f"{incident['impact']['requests_affected']:,}", border=True)


def _change(symptom: Json) -> str:
    before, after = symptom["before"], symptom["after"]
    if symptom["unit"] == "1" or not before:
        sign = "+" if after >= before else "-"
        return f"{sign}{amount(abs(after - before), symptom['unit'])}"
    return f"{(after - before) / before:+.0%}"


# ── symptoms ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _symptoms(incident: Json) -> None:
    symptoms = incident["symptoms"]
    chosen = 0
    if len(symptoms) > 1:
        chosen = st.selectbox(
            f"Symptom (1 of {len(symptoms)})", range(len(symptoms)), format_func=lambda i: _name(symptoms[i])
        )
    symptom = symptoms[chosen]
    _chart(symptom, _span(incident))
    sure = f"rule {symptom['rule']}" if symptom["rule"] else f"p = {symptom['p_value']:.2g}"
    st.caption(
        f"{safe(_name(symptom))}: {amount(symptom['before'], symptom['unit'])} → "
        f"{amount(symptom['after'], symptom['unit'])}, {sure}, {symptom['samples']:,} samples"
    )


def _name(symptom: Json) -> str:
    of = " ".join(part for part in (symptom["service"], symptom["operation"]) if part)
    return f"{MEASURES.get(symptom['measure'], symptom['measure'])} of {of}"


def _span(incident: Json) -> Span:
    onset_ns = nanoseconds(incident["onset_at"])
    last_ns = nanoseconds(incident["resolved_at"] or incident["last_seen_at"])
    end_ns = min(max(last_ns, onset_ns) + AFTER_NS, onset_ns + LONGEST_NS)
    now_ns = time.time_ns()
    return Span(onset_ns - BEFORE_NS, min(end_ns, now_ns), live=end_ns >= now_ns)


def _chart(symptom: Json, span: Span) -> None:
    measure, service, onset = symptom["measure"], symptom["service"], symptom["onset_at"]
    axis = span.axis()
    if measure not in MEASURES:
        body = client().metric(measure, span.from_ns, span.until(), service=service)
        named = {" ".join(filter(None, (s["instance"], s["hw_id"], s["labels"]))) or "value": s["points"]
                 for s in body["series"][:7]}  # fmt: skip
        if not named:
            st.info("The series of this symptom is not stored any more.")
            return
        st.altair_chart(charts.lines(named, f"{measure} ({body['unit'] or '1'})", axis, onset=onset), width="stretch")
        return
    windows = client().windows(service, symptom["operation"], span.from_ns, span.until())["windows"]
    if not windows:
        st.info("The windows of this symptom are not stored any more.")
    elif measure.startswith("latency"):
        st.altair_chart(charts.latency(windows, axis, onset=onset), width="stretch")
    elif measure == "error_ratio":
        chart = charts.single(
            windows, measure, "share of requests that fail", axis, colour=VERMILLION, onset=onset, format="%"
        )
        st.altair_chart(chart, width="stretch")
    else:
        chart = charts.single(windows, measure, "requests per second (1/s)", axis, colour=SKY, onset=onset)
        st.altair_chart(chart, width="stretch")


# ── causes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _causes(incident: Json) -> None:
    st.subheader("Why")
    causes = incident["causes"]
    if not causes or causes[0]["kind"] == "unknown":
        st.info("The evidence is too weak to name a cause.", icon=":material/help:")
    for cause in causes:
        if cause["kind"] != "unknown":
            _cause(cause)


def _cause(cause: Json) -> None:
    with st.container(border=True):
        st.markdown(f"**{cause['rank']}. {safe(where(cause))}**")
        confidence, share = st.columns(2)
        confidence.progress(_bounded(cause["score"]), text=f"{sure(cause)} sure")
        share.progress(_bounded(cause["share"]), text=f"accounts for {cause['share']:.0%} of the change")
        if cause["path"] and (len(cause["path"]) > 1 or cause["resource"]):
            st.graphviz_chart(drawing.path(cause["path"], cause), width="content")
        st.markdown("\n".join(f"- {safe(evidence['text'])}" for evidence in cause["evidence"]))


def _check(incident: Json) -> None:
    """The numbers behind the sentences, the questions that give them again, and the diagnosis made again."""
    whole = f"/api/v1/incidents/{incident['id']}/replay"
    said = [
        {
            "sentence": " ".join(
                filter(None, (s["service"], s["operation"], MEASURES.get(s["measure"], s["measure"])))
            ),
            "numbers": f"before {s['before']:g}, after {s['after']:g}",
            "question": s.get("query") or whole,
        }
        for s in incident["symptoms"]
    ]
    said += [
        {
            "sentence": e["text"],
            "numbers": ", ".join(f"{name} {value:g}" for name, value in e.get("numbers", {}).items()),
            "question": e.get("query") or whole,
        }
        for e in [e for cause in incident["causes"] for e in cause["evidence"]]
    ]
    if not said:
        return
    with st.expander("Check these numbers", icon=":material/fact_check:"):
        st.dataframe(said, hide_index=True)
        if st.button("Make this diagnosis again", help="from what it was made from, and compare byte for byte"):
            try:
                answer = client().replay_of(incident["id"])
            except BadRecord as error:
                st.info(safe(str(error)), icon=":material/info:")
                return
            looked = moment(answer["looked_at"])
            if answer["same"]:
                st.success(f"The look of {looked}, made again, gives the same bytes.", icon=":material/check:")
            else:
                st.error(f"The look of {looked}, made again, gives another answer.", icon=":material/error:")


def _bounded(value: float) -> float:
    return min(1.0, max(0.0, value))


def _impact(incident: Json) -> None:
    st.subheader("Who suffers")
    services = incident["impact"]["services"]
    if not services:
        st.caption("No service beyond those above.")
    with st.container(horizontal=True, gap="small"):
        for service in services:
            pages.link("service", service, icon=":material/monitoring:", service=service)
    at = utc_of(incident["onset_at"], 60)
    pages.link("map", "The service map of that time", icon=":material/hub:", at=at)


def utc_of(text: str, later_s: int) -> str:
    """An RFC 3339 time, some seconds later."""
    seconds = nanoseconds(text) // SECOND_NS + later_s
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _ruled_out(incident: Json) -> None:
    if not incident["ruled_out"]:
        return
    st.subheader("Ruled out")
    lines = [
        f"- **{safe(' '.join(filter(None, (r['service'], r['resource']))))}**: {safe(r['because'])}"
        for r in incident["ruled_out"]
    ]
    st.markdown("\n".join(lines))


def _example(trace_ids: list[str]) -> None:
    st.subheader("For example")
    chosen = trace_ids[0]
    if len(trace_ids) > 1:
        chosen = st.selectbox("Trace", trace_ids)
    try:
        trace = client().trace(chosen)
    except BadRecord:
        st.info("This trace is not stored any more.", icon=":material/search_off:")
        return
    show_trace(trace)
