"""Errors that services log, and exceptions that their spans record, before and after a moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from observe.frames import LOG_COUNTS, LogQuestion
from observe.store.rollups import sql

MAX_TEMPLATES = 1_000
DIFFERENT = r"""[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[^\s@]+@[^\s@]+|"[^"]*"|'[^']*'|\b[0-9a-fA-F]{12,}\b|[0-9]+"""
"""What is different each time, or nobody's business: ids, addresses of people, quoted values, numbers."""

_S = 1_000_000_000


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def count(db: Database, question: LogQuestion) -> pl.DataFrame:
    """Rows of LOG_COUNTS, sorted."""
    rows = db.query(
        sql("logged_errors"),
        {
            "services": list(question.services),
            "before_from": question.before_from_ns // _S,
            "before_to": question.before_to_ns // _S,
            "after_from": question.after_from_ns // _S,
            "after_to": question.after_to_ns // _S,
            "different": DIFFERENT,
            "templates": MAX_TEMPLATES,
        },
    )
    if not rows.width:
        return pl.DataFrame(schema=LOG_COUNTS)
    return rows.select(pl.col(name).cast(kind) for name, kind in LOG_COUNTS.items()).sort("service", "template")
