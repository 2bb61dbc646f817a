"""The pages: `streamlit run dashboards/app.py -- http://127.0.0.1:8080`."""

from __future__ import annotations

import streamlit as st

from dashboards import pages
from dashboards.api import guarded

# A named icon would be fetched from a server outside.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0072B2"/>'
    '<path d="M4 20h6l4-11 5 15 3-8h6" fill="none" stroke="#fff" stroke-width="3" stroke-linejoin="round"/></svg>'
)


def main() -> None:
    st.set_page_config(page_title="observe", page_icon=ICON, layout="wide")
    page = st.navigation(pages.shown(), position="sidebar")
    guarded(page.run)


main()
