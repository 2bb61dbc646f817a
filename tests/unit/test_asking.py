"""Questions of a look: asked once, noted, and never in the way of an alert."""

from __future__ import annotations

from typing import Any

import polars as pl

from observe.asking import Answers, Asking
from observe.errors import Unavailable
from observe.frames import ATTRIBUTE_COUNTS, SPAN_SAMPLE, AttributeQuestion, TraceQuestion

FIRST, SECOND = (AttributeQuestion("gateway", name, "Server", 50.0, 1, 2, 3, 4, 100) for name in ("a", "b"))


class Store:
    def __init__(self) -> None:
        self.asked: list[AttributeQuestion] = []
        self.away = False

    def attributes(self, question: AttributeQuestion) -> pl.DataFrame:
        self.asked.append(question)
        if self.away:
            raise Unavailable("too slow")
        return pl.DataFrame([("", "", "", 1, 2, 3, 4)], schema=ATTRIBUTE_COUNTS, orient="row")


def test_traces_are_asked_for_like_attributes() -> None:
    class Traces(Store):
        def sampled(self, question: TraceQuestion) -> pl.DataFrame:
            raise Unavailable("too slow")

    store: Any = Traces()
    noted: Answers = {}
    question = TraceQuestion("gateway", 1, 2, 3, 4, 100)
    answer = Asking(store)(noted)(question)
    assert (answer.schema, answer.height, list(noted)) == (pl.Schema(SPAN_SAMPLE), 0, [question])


def test_the_same_question_is_asked_once_and_noted_each_time() -> None:
    store: Any = Store()
    asking = Asking(store)
    first: Answers = {}
    second: Answers = {}
    assert asking(first)(FIRST).equals(asking(second)(FIRST))
    assert store.asked == [FIRST]
    assert list(first) == list(second) == [FIRST]


def test_a_store_that_has_no_time_is_left_alone_for_a_while() -> None:
    store: Any = Store()
    store.away = True
    asking = Asking(store)
    noted: Answers = {}
    assert asking(noted)(FIRST).is_empty()
    assert asking(noted)(SECOND).is_empty()
    assert store.asked == [FIRST]
    assert set(noted) == {FIRST, SECOND}
