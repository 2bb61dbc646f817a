"""The page of objectives, on Streamlit's own test runner."""

from streamlit.testing.v1 import AppTest

from dashboards.views import slos
from tests.unit.test_api_judging import Judge


class Client(Judge):
    def __init__(self, *changes):
        super().__init__()
        self.changes = changes

    def health(self):
        return {"status": "ok"}

    def slos(self):
        body = super().slos()
        return body | {"slos": [body["slos"][0] | change for change in self.changes]}


def shown(monkeypatch, *changes):
    monkeypatch.setattr(slos, "client", lambda: Client(*changes))

    def page():
        from dashboards.views import slos

        slos.show()

    app = AppTest.from_function(page, default_timeout=180)
    app.run()
    assert not app.exception
    return app


def test_without_objectives_the_page_says_where_they_are_set(monkeypatch):
    assert "slo.objectives" in shown(monkeypatch).info[0].value


def test_the_most_spent_comes_first_and_names_are_no_markup(monkeypatch):
    spent = {"name": "[spent](x)", "budget_remaining": -1.5, "firing": True, "latency_ms": 300.0, "model": "llama"}
    app = shown(monkeypatch, {}, spent)
    names = [text.value for text in app.markdown if text.value.startswith("**")]
    assert names == [r"**\[spent\](x)** · shop · llama", "**up** · shop"]
    assert any("take less than 300 ms" in text.value for text in app.caption)
    assert app.dataframe[0].value["pages at"].to_list() == ["14.4×"]
