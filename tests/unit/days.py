"""Days of made history: windows of services as a function of the time, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from observe import frames as shapes
from observe import pipeline
from observe.frames import BLOCK_NS, BLOCKS, SERVICE_WINDOWS, Frames, PastQuestion
from observe.settings import Settings, load
from observe.types import WINDOW_NS, Incident
from observe.verdict import Asked

DAY_NS = 86_400 * 10**9
MINUTE_NS = 60 * 10**9
MONDAY_NS = 20_000 * DAY_NS + 4 * DAY_NS  # 2024-10-08 00:00 UTC and some days of history before it


@dataclass(frozen=True, slots=True)
class Now:
    """What a service does in one window."""

    requests: int = 50
    median_ms: float = 100.0
    errors: float = 0.0


@dataclass
class Past:
    """Answers looks and questions about the past alike. The same window is the same each time it is drawn."""

    behaves: Callable[[int], Now]  # of "shop" in the window that starts at a time
    first_ns: int = 0  # nothing is known from before
    company: bool = False  # of "other", without which nobody can tell that "shop" fell silent
    answers: dict[PastQuestion, Frames] = field(default_factory=dict)
    windows: dict[int, list[Row]] = field(default_factory=dict)

    def read(self, from_ns: int, to_ns: int) -> Frames:
        rows = [row for window in self._between(from_ns, to_ns, WINDOW_NS) for row in self._window(window)]
        return replace(shapes.empty(), windows=_frame(rows, SERVICE_WINDOWS))

    def __call__(self, question: PastQuestion) -> Frames:
        if question not in self.answers:
            self.answers[question] = self._answer(question)
        return self.answers[question]

    def replay(self, from_ns: int, to_ns: int, settings: Settings | None = None) -> list[Incident]:
        return pipeline.replay(self.read, from_ns, to_ns, settings or load(environ={}), asked=Asked(past=self))

    def _answer(self, question: PastQuestion) -> Frames:
        if question.part == "blocks":
            rows = [self._block(b) for one in question.ranges for b in self._between(*one, BLOCK_NS)]
            return replace(shapes.empty(), blocks=_frame(rows, BLOCKS))
        windows = pl.concat([self.read(*one).windows for one in question.ranges])
        return replace(shapes.empty(), windows=windows.filter(pl.col("service").is_in(question.services)))

    def _between(self, from_ns: int, to_ns: int, step_ns: int) -> range:
        return range(*(max(-(-t // step_ns), -(-self.first_ns // step_ns)) for t in (from_ns, to_ns)))

    def _window(self, window: int) -> list[Row]:
        if window not in self.windows:
            names = [("shop", self.behaves(window * WINDOW_NS))]
            names += [("other", Now(requests=3))] if self.company else []
            rng = np.random.default_rng(window)
            drawn = [(name, *_drawn([now], rng)) for name, now in names if now.requests]
            self.windows[window] = [
                (window * WINDOW_NS, name, "GET /", "Server", "1", n, errors, 1.0, found)
                for name, n, errors, found in drawn
            ]
        return self.windows[window]

    def _block(self, block: int) -> Row:
        """What the store keeps for longer, of "shop"."""
        starts = range(block * BLOCK_NS, (block + 1) * BLOCK_NS, WINDOW_NS)
        n, errors, found = _drawn([self.behaves(at) for at in starts], np.random.default_rng(block))
        return block * BLOCK_NS, "shop", "GET /", "Server", "", n, errors, found


Row = tuple[object, ...]


def _drawn(windows: Sequence[Now], rng: np.random.Generator) -> tuple[int, int, tuple[np.ndarray, np.ndarray]]:
    """Requests, errors and a histogram."""
    requests = rng.poisson([now.requests for now in windows])
    ms = np.repeat([now.median_ms for now in windows], requests) * np.exp(0.4 * rng.normal(size=requests.sum()))
    bucket, count = np.unique(np.ceil(16 * np.log2(ms)).astype(int) - 1, return_counts=True)
    errors = rng.binomial(requests, [now.errors for now in windows])
    return int(requests.sum()), int(errors.sum()), (bucket, count)


def _frame(rows: Sequence[Row], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Rows whose last value is a histogram. Built flat: nested values are slow to take in one by one."""
    if not rows:
        return pl.DataFrame(schema=schema)
    names = list(schema)
    flat: list[tuple[np.ndarray, np.ndarray]] = [row[-1] for row in rows]  # type: ignore[misc]
    buckets, counts = (np.concatenate([one[part] for one in flat]) for part in (0, 1))
    number = np.repeat(np.arange(len(rows)), [len(one[0]) for one in flat])
    entries = pl.DataFrame({"row": number, "bucket": buckets, "count": counts})
    lists = entries.group_by("row", maintain_order=True).agg(pl.struct("bucket", "count").alias(names[-1]))
    head = pl.DataFrame([row[:-1] for row in rows], schema={n: schema[n] for n in names[:-1]}, orient="row")
    joined = head.with_row_index("row").join(lists, on=pl.col("row").cast(pl.Int64), how="left", maintain_order="left")
    return joined.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
