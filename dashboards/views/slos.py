"""What users were promised: how much of each error budget is left, and how fast it burns."""

from __future__ import annotations

import streamlit as st

from dashboards.api import client, guarded
from dashboards.words import moment, safe
from observe.types import Json

REFRESH_S = 30


def show() -> None:
    """Every objective, the most spent first."""
    st.title("Objectives")
    client().health()  # one notice for the whole page where the API is away
    _now()


@st.fragment(run_every=REFRESH_S)
def _now() -> None:
    guarded(_cards)


def _cards() -> None:
    body = client().slos()
    found = sorted(body["slos"], key=lambda slo: (slo["budget_remaining"], slo["name"]))
    if not found:
        st.info("No objective is set: `slo.objectives` in observe.toml holds them.", icon=":material/flag:")
        return
    st.caption(f"As of {moment(body['at'])}; budgets are for the last {body['days']} days")
    for slo in found:
        with st.container(border=True):
            _card(slo)


def _card(slo: Json) -> None:
    parts = [safe(slo["service"]), *(safe(slo[key]) for key in ("operation", "model") if slo[key] not in ("", "*"))]
    st.markdown(f"**{safe(slo['name'])}** · {' · '.join(parts)}")
    st.caption(f"{_percent(slo['target'])} of requests {_promise(slo)}; {_kept(slo)}")
    left = slo["budget_remaining"]
    if slo["firing"]:
        st.badge("burning too fast", color="red", icon=":material/local_fire_department:")
    elif left <= 0:
        st.badge("spent", color="orange", icon=":material/warning:")
    else:
        st.badge("kept", color="green", icon=":material/check:")
    st.progress(min(1.0, max(0.0, left)), text=f"{_percent(left)} of the error budget is left")
    rows = [
        {
            "over (h)": round(burn["long_s"] / 3600, 2),
            "burns": f"{burn['long_rate']:.2g}×",
            "over (min)": round(burn["short_s"] / 60, 1),
            "still burns": f"{burn['short_rate']:.2g}×",
            "pages at": f"{burn['limit']:g}×",
            "as": burn["severity"],
        }
        for burn in slo["burn_rates"]
    ]
    st.dataframe(rows, hide_index=True, width="stretch")


def _promise(slo: Json) -> str:
    return "succeed" if slo["latency_ms"] is None else f"take less than {slo['latency_ms']:g} ms"


def _kept(slo: Json) -> str:
    good = "no requests" if slo["good_ratio"] is None else f"{_percent(slo['good_ratio'])} did"
    return f"{good} ({slo['requests']:,} requests, {slo['bad_requests']:,.0f} bad)"


def _percent(share: float) -> str:
    """
    >>> _percent(0.9995), _percent(0.99), _percent(-7.0)
    ('99.95 %', '99 %', '-700 %')
    """
    return f"{share * 100:.4g} %"
