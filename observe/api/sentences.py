"""Incidents with the SQL of their sentences, as answers about one give it."""

from __future__ import annotations

from observe.store.asked import sql_of
from observe.types import Json


def with_sql(body: Json) -> Json:
    """The incident with the SQL of each sentence beside its address; changes the body."""
    evidence = (said for cause in body["causes"] for said in cause["evidence"])
    for sentence in [*body["symptoms"], *evidence, *body["ruled_out"]]:
        sentence["sql"] = sql_of(sentence["query"])
    return body
