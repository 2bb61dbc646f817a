"""What slow or failing requests have in common, counted over a bounded sample of whole traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from observe.frames import ATTRIBUTE_COUNTS, AttributeQuestion
from observe.store.rollups import sql

MAX_TRACES = 3_000
MAX_VALUES = 4_000
LEAST = 5
"""A value that fewer bad traces have says nothing, and ids of all kinds would be the most of all rows."""

PRIVATE = (
    r"(?i)^enduser\.|^user\.(email|name|full_name|hash)|e_?mail|authorization|cookie|passw|secret|session|credential"
    r"|\.messages?$|prompt$|completion$|^db\.(statement|query\.text|query\.parameter)|\.header\.|body$"
)
"""Attributes whose values must not end up in an alert, whatever they would explain."""

_S = 1_000_000_000


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def count(db: Database, question: AttributeQuestion) -> pl.DataFrame:
    """Rows of ATTRIBUTE_COUNTS, the first of them the totals."""
    rows = db.query(sql("attribute_counts"), parameters(question))
    if not rows.width:
        return pl.DataFrame(schema=ATTRIBUTE_COUNTS)
    columns = [pl.col(name).cast(kind) for name, kind in ATTRIBUTE_COUNTS.items()]
    return rows.select(columns).sort("service", "key", "value")


def parameters(question: AttributeQuestion) -> Mapping[str, object]:
    """Of the query that answers it."""
    return {
        "service": question.service,
        "operation": question.operation,
        "kind": question.kind,
        "slower_than_ns": int(question.slower_than_ms * 1e6),
        "before_from": question.before_from_ns // _S,
        "before_to": question.before_to_ns // _S,
        "after_from": question.after_from_ns // _S,
        "after_to": question.after_to_ns // _S,
        "every": max(1, question.requests // MAX_TRACES),
        "traces": MAX_TRACES,
        "values": MAX_VALUES,
        "least": LEAST,
        "private": PRIVATE,
    }
