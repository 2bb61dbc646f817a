"""From a full cache to slow answers: what an inference server's own numbers say about the way between the two."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from observe.diagnose.graph import Picture
from observe.diagnose.readings import Reading
from observe.diagnose.resources import WRAPPED, Finding
from observe.diagnose.symptoms import Symptom
from observe.frames import Frames
from observe.types import Evidence, Numbers

FIRST_TOKEN = (
    "vllm:time_to_first_token_seconds",
    "sglang:time_to_first_token_seconds",
    "gen_ai.server.time_to_first_token",
    "nv_inference_first_response_histogram_ms",
)
QUEUE = ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds", "tgi_request_queue_duration")
RISE = 1.3
"""A duration that rose by less is no link of the chain."""


def chain(
    device: Finding, path: Sequence[str], members: Sequence[Symptom], frames: Frames, picture: Picture
) -> Evidence | None:
    """The links in order, each with its numbers: cache, queue, time in the queue, time to first token, what users see.

    `path` leads from what users meet to the server. None where the device is no server with a full cache,
    or nothing is known beside it.
    """
    cache = next((r for r in device.readings if "KV cache" in r.text), None)
    if cache is None:
        return None
    queue = next((r for r in device.readings if r.text.startswith("waiting requests")), None)
    links = [("KV cache", *_means(cache), "%"), *([("waiting requests", *_means(queue), "")] if queue else [])]
    for what, names in (("time in the queue", QUEUE), ("time to first token", FIRST_TOKEN)):
        found = _duration(frames.windows, names, path[-1], picture)
        links += [(what, *found, "ms")] if found and found[1] > RISE * found[0] else []
    top = _felt(path[0], members)
    links += [(f"latency of {top[0]}", top[1], top[2], "ms")] if top else []
    if len(links) < 2:
        return None
    text = " → ".join(f"{what} {_said(before, unit)} to {_said(after, unit)}" for what, before, after, unit in links)
    numbers: Numbers = tuple(
        pair for i, (_, before, after, _) in enumerate(links) for pair in ((f"before{i}", before), (f"after{i}", after))
    )
    return Evidence("chain", text, numbers)


def _means(reading: Reading) -> tuple[float, float]:
    found = dict(reading.numbers)
    return found["before"], found["after"]


def _duration(
    windows: pl.DataFrame, names: Sequence[str], service: str, picture: Picture
) -> tuple[float, float] | None:
    """Mean in ms before and after of a histogram that the service, or a server that sends no spans, sent."""
    plain = pl.col("operation").str.replace(WRAPPED, "vllm:")
    strangers = ~pl.col("service").is_in([s for s in picture.services if s != service])
    rows = (
        windows.lazy()
        .filter((pl.col("kind") == "Metric") & plain.is_in(list(names)) & strangers)
        .with_columns(picture.periods.mark())
        .group_by("period")
        .agg(mean=pl.col("duration_sum_ms").sum() / pl.col("requests").sum())
        .drop_nulls()
        .collect()
    )
    found = dict(rows.select("period", "mean").iter_rows())
    return (float(found[0]), float(found[1])) if found.keys() >= {0, 1} else None


def _felt(top: str, members: Sequence[Symptom]) -> tuple[str, float, float] | None:
    """The latency that rose where the path begins."""
    slow = [s for m in members if m.aspect == "latency" and m.sign > 0 for s in m.shifts if s.service == top]
    if not slow:
        return None
    worst = max(slow, key=lambda s: (s.kind == "Server", s.after, s.operation))
    level = worst.measure.removeprefix("latency_").removesuffix("_ms").upper()
    return f"{top} ({level})", worst.before, worst.after


def _said(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.0%}"
    if unit == "ms":
        return f"{value / 1000:.2g} s" if value >= 1000 else f"{value:.3g} ms"
    return f"{value:.3g}"
