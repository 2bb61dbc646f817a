"""Quantiles of exponential histograms, the one rule that detection, API and pages share.

A histogram is a list of {bucket, count} on OpenTelemetry's exponential scale 4 over milliseconds: bucket i covers
(2^(i/16), 2^((i+1)/16)] ms. The quantile q is the value of rank ceil(q·n), the definition without interpolation
(type 1 of Hyndman & Fan, The American Statistician 50(4), 1996, doi:10.2307/2684934), placed at the geometric middle
of the bucket that holds this rank. A bucket spans a factor of 2^(1/16), so the answer is off by a factor of at most
2^(1/32): 2.2 %. That a logarithmic histogram keeps such a bound for every quantile, also after merging, is the point
of DDSketch (Masson, Rim & Lee, PVLDB 12(12), 2019, doi:10.14778/3352063.3352135).
"""

from __future__ import annotations

import polars as pl

from observe.frames import BUCKETS, BUCKETS_PER_OCTAVE

MAX_RELATIVE_ERROR = 2 ** (0.5 / BUCKETS_PER_OCTAVE) - 1


def middle_ms(bucket: pl.Expr) -> pl.Expr:
    """Geometric middle of each bucket in ms: what one value of it is taken for."""
    return (2.0 ** ((bucket.cast(pl.Float64) + 0.5) / BUCKETS_PER_OCTAVE)).cast(pl.Float64)


def upper_ms(bucket: pl.Expr) -> pl.Expr:
    """Upper, inclusive bound of each bucket in ms."""
    return (2.0 ** ((bucket.cast(pl.Float64) + 1.0) / BUCKETS_PER_OCTAVE)).cast(pl.Float64)


def bucket_of_ms(value_ms: pl.Expr) -> pl.Expr:
    """The bucket that holds each value; values of 0 or less go to the lowest bucket that Int16 knows."""
    index = (value_ms.log(2.0) * BUCKETS_PER_OCTAVE).ceil() - 1
    return index.clip(-(2**15), 2**15 - 1).fill_nan(-(2**15)).cast(pl.Int16)


def long(frame: pl.DataFrame | pl.LazyFrame, by: list[str], column: str = "latency_buckets") -> pl.LazyFrame:
    """One row per group and bucket: `by`, bucket (Int16), count (UInt64), summed over the rows of each group."""
    rows = frame.lazy().select(*by, pl.col(column).alias("histogram")).explode("histogram")
    counts = rows.select(
        *by,
        pl.col("histogram").struct.field("bucket").alias("bucket"),
        pl.col("histogram").struct.field("count").alias("count"),
    )
    return counts.drop_nulls("bucket").group_by([*by, "bucket"]).agg(pl.col("count").sum())


def merged(frame: pl.DataFrame, by: list[str], column: str = "latency_buckets") -> pl.DataFrame:
    """Sum of the histograms of each group: `by` and `column`, buckets in order. Groups without buckets are left out."""
    return (
        long(frame, by, column)
        .sort([*by, "bucket"])
        .group_by(by, maintain_order=True)
        .agg(pl.struct("bucket", "count").alias(column))
        .with_columns(pl.col(column).cast(BUCKETS))
        .collect()
    )


def quantiles(
    frame: pl.DataFrame, by: list[str], levels: dict[str, float], column: str = "latency_buckets"
) -> pl.DataFrame:
    """Quantiles in ms of each group, all levels in one pass: `by` and one Float64 column per name in `levels`.

    `levels` maps column names to levels in [0, 1]. Groups without any count are left out. Rows are sorted by `by`.

    >>> histograms = [[{"bucket": 0, "count": 99}], [{"bucket": 160, "count": 1}]]
    >>> schema = {"service": pl.String, "latency_buckets": BUCKETS}
    >>> two = pl.DataFrame({"service": ["a", "a"], "latency_buckets": histograms}, schema=schema)
    >>> quantiles(two, ["service"], {"p50_ms": 0.5, "p99_ms": 0.99, "p100_ms": 1.0}).row(0)
    ('a', 1.0218971486541166, 1.0218971486541166, 1046.4226802218154)
    """
    ranked = (
        long(frame, by, column)
        .filter(pl.col("count") > 0)
        .sort([*by, "bucket"])
        .with_columns(pl.col("count").cum_sum().over(by).alias("below"), pl.col("count").sum().over(by).alias("total"))
    )
    picked = [
        # The first bucket whose cumulative count reaches the rank; the rank of level 0 is the first value.
        middle_ms(pl.col("bucket").filter(pl.col("below") >= rank(level, pl.col("total"))).first()).alias(name)
        for name, level in levels.items()
    ]
    return ranked.group_by(by, maintain_order=True).agg(picked).collect()


def rank(level: float, total: pl.Expr) -> pl.Expr:
    """ceil(level · total), at least 1, robust against the last bit of the product (0.99 · 100 is 99)."""
    return (level * total.cast(pl.Float64) - 1e-9).ceil().clip(1.0, None)
