"""Questions of a look to the store: asked once each, with their answers noted for the audit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import polars as pl

from observe.frames import AttributeQuestion, Frames, LogQuestion, PastQuestion, Question, empty, no_answer
from observe.interfaces import Store

log = logging.getLogger(__name__)

PAUSE_S = 60.0
"""After a question failed: a store that has no time for one has none for the next."""
REMEMBERED = 64
"""Questions stay the same while an incident goes on, look after look."""
REMEMBERED_PASTS = 8
"""Pasts are larger than counts."""

Q = TypeVar("Q")
A = TypeVar("A")

Answers = dict[Question, pl.DataFrame]
Pasts = dict[PastQuestion, Frames]


class Once(Generic[Q, A]):
    """Asks each question once. One that fails is answered with `nothing`: what it could add is not worth the alert."""

    def __init__(self, asked: Callable[[Q], A], nothing: Callable[[Q], A], remembered: int) -> None:
        self._asked, self._nothing, self._remembered = asked, nothing, remembered
        self._known: dict[Q, A] = {}
        self._again_s = 0.0

    def noting(self, noted: dict[Q, A]) -> Callable[[Q], A]:
        """A function that answers, and writes every answer to `noted`."""

        def ask(question: Q) -> A:
            noted[question] = self._answer(question)
            return noted[question]

        return ask

    def _answer(self, question: Q) -> A:
        if question not in self._known:
            if time.monotonic() < self._again_s:
                return self._nothing(question)
            try:
                found = self._asked(question)
            except Exception as error:  # whatever it is: a slow or failing answer is no reason to miss an incident
                log.warning("%s, done without for a minute: %s", question, error)
                self._again_s = time.monotonic() + PAUSE_S
                return self._nothing(question)
            self._known = dict([*self._known.items(), (question, found)][-self._remembered :])
        return self._known[question]


class Asking:
    """Asks a store what looks want to know beyond their windows."""

    def __init__(self, store: Store) -> None:
        def counted(question: Question) -> pl.DataFrame:
            if isinstance(question, LogQuestion):
                return store.logged(question)
            return store.attributes(question) if isinstance(question, AttributeQuestion) else store.sampled(question)

        self._requests: Once[Question, pl.DataFrame] = Once(counted, no_answer, REMEMBERED)
        self._pasts: Once[PastQuestion, Frames] = Once(lambda q: store.past(q), lambda _: empty(), REMEMBERED_PASTS)

    def __call__(self, noted: Answers) -> Callable[[Question], pl.DataFrame]:
        """About attributes, traces and errors of requests; every answer is written to `noted`."""
        return self._requests.noting(noted)

    def past(self, noted: Pasts) -> Callable[[PastQuestion], Frames]:
        """What series did in earlier times; every answer is written to `noted`."""
        return self._pasts.noting(noted)
