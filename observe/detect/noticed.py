"""Answers the question behind a symptom from windows, by the rules that noticed it."""

from __future__ import annotations

import numpy as np
import polars as pl

from observe.detect.latency import quantiles_ms
from observe.frames import Frames
from observe.noticed import QUANTILES, Noticed, Ranges
from observe.types import Numbers


def levels(frames: Frames, asked: Noticed) -> Numbers:
    """(before, after, requests_before, requests_after) of the series; without what has no requests to tell it from."""
    mine = frames.windows.filter(
        (pl.col("service") == asked.service) & (pl.col("operation") == asked.operation) & (pl.col("kind") == asked.kind)
    )
    parts = _within(mine, asked.before), _within(mine, asked.after)
    counts = [float(part["requests"].sum()) for part in parts]
    if asked.measure == "requests_per_s":
        found = [_usual(mine, asked), counts[1] / sum(b - a for a, b in asked.after) * 1e9]
    else:
        found = [_level(part, asked.measure) for part in parts]
    named = zip(("before", "after", "requests_before", "requests_after"), (*found, *counts), strict=True)
    return tuple((name, value) for name, value in named if np.isfinite(value))


def _within(windows: pl.DataFrame, ranges: Ranges) -> pl.DataFrame:
    start = pl.col("window_start_ns")
    return windows.filter(pl.any_horizontal([(start >= a) & (start < b) for a, b in ranges]))


def _level(windows: pl.DataFrame, measure: str) -> float:
    if measure == "error_ratio":
        requests = float(windows["requests"].sum())
        return float(windows["errors"].sum()) / requests if requests else np.nan
    buckets = windows.select("latency_buckets").explode("latency_buckets").unnest("latency_buckets").drop_nulls()
    if buckets.is_empty():
        return np.nan
    bucket = buckets["bucket"].to_numpy().astype(np.int64)
    histogram = np.bincount(bucket - bucket.min(), weights=buckets["count"].to_numpy()).astype(np.float64)
    return float(quantiles_ms(histogram[None, :], (QUANTILES[measure],), int(bucket.min()))[0, 0])


def _usual(windows: pl.DataFrame, asked: Noticed) -> float:
    """Lower median of the requests of the blocks before, per second."""
    sums = sorted(float(_within(windows, (block,))["requests"].sum()) for block in asked.blocks())
    return sums[(len(sums) - 1) // 2] / asked.block_ns * 1e9 if sums else np.nan
