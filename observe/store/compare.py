"""Windows of one service, versions apart, for the comparison of two of them."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from observe.frames import SERVICE_WINDOWS, TOKEN_WINDOWS, Frames, empty
from observe.store.calls import TOKENS, Database, typed
from observe.store.windows import SERVICE_WINDOWS as WINDOWS


def of_service(db: Database, service: str, from_ns: int, to_ns: int) -> Frames:
    """Frames that hold the windows and the model calls of one service that start in [from_ns, to_ns)."""
    span = {"from": -(-max(0, from_ns) // 10**9), "to": -(-max(0, to_ns) // 10**9), "service": service}
    condition = "ServiceName = {service:String} AND Window >="
    rows = [db.query(sql.replace("WHERE Window >=", f"WHERE {condition}", 1), span) for sql in (WINDOWS, TOKENS)]
    windows: pl.DataFrame = typed(rows[:1], SERVICE_WINDOWS, 5)
    return replace(empty(), windows=windows, tokens=typed(rows[1:], TOKEN_WINDOWS, 8))
