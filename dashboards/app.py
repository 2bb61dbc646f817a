"""The pages: `streamlit run dashboards/app.py -- http://127.0.0.1:8080`."""

from __future__ import annotations

import streamlit as st

from dashboards import pages
from dashboards.api import guarded


def main() -> None:
    st.set_page_config(page_title="observe", page_icon=":material/monitoring:", layout="wide")
    page = st.navigation(pages.shown(), position="sidebar")
    guarded(page.run)


main()
