"""Pages without anything to show, on Streamlit's own test runner."""

import sys

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from dashboards.run import APP
from observe.api import create_app, serve
from observe.frames import empty
from observe.store.read import Reader


class EmptyStore:
    def incidents(self, **question):
        return []

    def frames(self, from_ns, to_ns, *, joins=True):
        return empty()

    def query(self, sql, parameters=None):
        return pl.DataFrame()


@pytest.fixture
def api():
    store = EmptyStore()
    server = serve(create_app(Reader(store), store, audit=dict, replay=lambda a, b: {"incidents": []}), "127.0.0.1:0")
    yield server
    server.stop()


def run(monkeypatch, url, page=""):
    monkeypatch.setattr(sys, "argv", ["app.py", url])
    app = AppTest.from_file(str(APP), default_timeout=180)
    app.run()
    if page:
        app.switch_page(page).run()
    assert not app.exception
    return app


def test_no_incident_is_good_news(api, monkeypatch):
    app = run(monkeypatch, api.url)
    assert [box.value for box in app.success] == ["No open incidents: everything looks normal."]
    assert "No resolved incidents" in app.info[0].value


def test_an_api_that_is_away_is_told_and_not_thrown(api, monkeypatch):
    api.stop()
    app = run(monkeypatch, api.url)
    assert "The API does not answer" in app.warning[0].value
