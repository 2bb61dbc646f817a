"""What stands behind the sentences of an explanation: each names one of these questions, and its number comes back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from observe.api import models
from observe.api.parameters import AttributesQuery, CompareQuery, LevelsQuery
from observe.detect.noticed import levels
from observe.diagnose.attributes import counted, set_apart
from observe.diagnose.compare import UNITS, Question, compare
from observe.diagnose.levels import Periods
from observe.frames import AttributeQuestion
from observe.interfaces import Store
from observe.noticed import unit
from observe.types import Json


def router(store: Store) -> APIRouter:
    """`compare` and `attributes`."""
    routes = APIRouter(tags=["questions"])

    @routes.get("/compare", response_model=models.Compared)
    def compared(query: Annotated[CompareQuery, Query()]) -> Json:
        """One number before and after, from the stored windows."""
        when = Periods(*query.bounds())
        asked = Question(
            query.of, when, query.service, query.callee, query.dimension, tuple(query.value), query.metric,
            query.hw_id, query.host, query.instance, query.labels,
        )  # fmt: skip
        frames = store.frames(when.before_from_ns, when.after_to_ns)
        return {"of": query.of, "numbers": dict(compare(frames, asked)), "unit": UNITS[query.of]}

    @routes.get("/levels", response_model=models.Compared)
    def levels_of(query: Annotated[LevelsQuery, Query()]) -> Json:
        """The level of one series in the windows that a symptom was noticed in, and in those it was compared with."""
        asked = query.asked()
        frames = store.frames(asked.before[0][0], asked.after[-1][1], joins=False)
        return {"of": asked.measure, "numbers": dict(levels(frames, asked)), "unit": unit(asked.measure)}

    @routes.get("/attributes", response_model=models.Attributes)
    def attributes(query: Annotated[AttributesQuery, Query()]) -> Json:
        """Which attribute values set the slow or failing requests of an operation apart, in a sample of traces."""
        asked = AttributeQuestion(
            query.service, query.operation, query.kind, query.slower_than_ms, *query.bounds(), query.requests
        )
        counts = store.attributes(asked)
        wanted = dict(counted(counts, query.of, query.key, query.value)) if query.key else {}
        return {
            "values": max(counts.height - 1, 0),
            "numbers": wanted,
            "apart": [asdict(one) | {"alike": list(one.alike)} for one in set_apart(counts)],
        }

    return routes
