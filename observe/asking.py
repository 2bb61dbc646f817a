"""Questions of a look to the store: asked once each, with their answers noted for the audit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import polars as pl

from observe.frames import AttributeQuestion, Question, no_answer
from observe.interfaces import Store

log = logging.getLogger(__name__)

PAUSE_S = 60.0
"""After a question failed: a store that has no time for one has none for the next."""
REMEMBERED = 64
"""Questions stay the same while an incident goes on, look after look."""

Answers = dict[Question, pl.DataFrame]


class Asking:
    """Asks a store about attributes and traces, each question once. A question that fails is answered with no rows:
    what it could add is not worth the alert."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Answers = {}
        self._again_s = 0.0

    def __call__(self, noted: Answers) -> Callable[[Question], pl.DataFrame]:
        """A function that answers, and writes every answer to `noted`."""

        def ask(question: Question) -> pl.DataFrame:
            noted[question] = self._answer(question)
            return noted[question]

        return ask

    def _answer(self, question: Question) -> pl.DataFrame:
        if question not in self._known:
            if time.monotonic() < self._again_s:
                return no_answer(question)
            try:
                found = self._asked(question)
            except Exception as error:  # whatever it is: a slow or failing count is no reason to miss an incident
                log.warning("%s of %s: %s", type(question).__name__, question.service, error)
                self._again_s = time.monotonic() + PAUSE_S
                return no_answer(question)
            self._known = dict([*self._known.items(), (question, found)][-REMEMBERED:])
        return self._known[question]

    def _asked(self, question: Question) -> pl.DataFrame:
        if isinstance(question, AttributeQuestion):
            return self._store.attributes(question)
        return self._store.sampled(question)
