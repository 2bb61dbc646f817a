"""The one connection to the API, and what a page shows while it is away."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboards.run import api_url
from observe.client import Client, Unavailable

RETRY_S = 5


@st.cache_resource
def _client(url: str) -> Client:
    return Client(url)


def client() -> Client:
    """The client, shared by all sessions."""
    return _client(api_url())


def guarded(show: Callable[[], None]) -> None:
    """Shows a page, or says that the API is away and comes back by itself."""
    try:
        show()
    except Unavailable as error:
        st.warning(f"The API does not answer, so there is nothing to show.\n\n`{error}`", icon=":material/cloud_off:")
        st.caption(f"Trying again every {RETRY_S} seconds.")
        _retry()


@st.fragment(run_every=RETRY_S)
def _retry() -> None:
    try:
        client().health()
    except Unavailable:
        return
    st.rerun()
