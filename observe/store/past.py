"""Earlier times of few series: what the same hour was like yesterday, or the time before an incident."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl

from observe.frames import BLOCKS, GAUGE_WINDOWS, SERVICE_WINDOWS, TOKEN_WINDOWS, Frames, PastQuestion, empty
from observe.store import marks
from observe.store.calls import OF_SERVICES, TOKENS, Database, typed
from observe.store.rollups import sql
from observe.store.windows import SERVICE_WINDOWS as WINDOWS

SERIES = (
    "has({services:Array(String)}, ServiceName)"
    " AND (empty({operations:Array(String)}) OR has({operations:Array(String)}, SpanName))"
)


def answer(db: Database, question: PastQuestion) -> Frames:
    """The windows, metrics or blocks that start in the ranges."""
    if not question.services or not question.ranges:
        return empty()
    return _PARTS[question.part](db, question)


def _windows(db: Database, question: PastQuestion) -> Frames:
    windows, tokens = (db.query(*_narrowed(text, "Window", question)) for text in (WINDOWS, TOKENS))
    return replace(empty(), windows=typed([windows], SERVICE_WINDOWS, 5), tokens=typed([tokens], TOKEN_WINDOWS, 8))


def _blocks(db: Database, question: PastQuestion) -> Frames:
    return replace(empty(), blocks=typed([db.query(*_narrowed(OF_SERVICES, "Block", question))], BLOCKS, 5))


def _metrics(db: Database, question: PastQuestion) -> Frames:
    ranges = [{"from": a, "to": b, "lookback": marks.POINT_LOOKBACK_S} for a, b in _seconds(question)]
    windows = typed([db.query(sql("metric_windows"), one) for one in ranges], SERVICE_WINDOWS, 5)
    gauges = typed([db.query(sql("gauge_windows"), one) for one in ranges], GAUGE_WINDOWS, 9)
    asked = pl.col("service").is_in(pl.Series(question.services, dtype=pl.String).implode())
    return replace(empty(), windows=windows.filter(asked), gauges=gauges.filter(asked))


_PARTS: dict[str, Callable[[Database, PastQuestion], Frames]] = {
    "windows": _windows,
    "metrics": _metrics,
    "blocks": _blocks,
}


def _narrowed(select: str, time: str, question: PastQuestion) -> tuple[str, dict[str, object]]:
    """The SELECT of one range for all ranges of a question, and of its series only; with its parameters.

    Bounds stand in the condition one by one: an array of them would hide from the server which parts it need not read.
    """
    parameters: dict[str, object] = {"services": list(question.services), "operations": list(question.operations)}
    bounds = []
    for number, (first_s, last_s) in enumerate(_seconds(question)):
        parameters |= {f"from{number}": first_s, f"to{number}": last_s}
        names = (f"toDateTime({{{end}{number}:UInt32}}, 'UTC')" for end in ("from", "to"))
        bounds.append("({0} >= {1} AND {0} < {2})".format(time, *names))
    head, tail = select.split("WHERE ", 1)
    rest = tail[tail.index("GROUP BY") :]
    return f"{head}WHERE ({' OR '.join(bounds)}) AND {SERIES}\n{rest}", parameters


def _seconds(question: PastQuestion) -> list[tuple[int, int]]:
    return [(-(-max(0, a) // 10**9), -(-max(0, b) // 10**9)) for a, b in question.ranges]
