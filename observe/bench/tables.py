"""Tables of a labelled set as people keep them: Parquet or CSV, more columns than asked, odd types, gaps.

A table that lacks what every case needs is refused with the column's name; rows that cannot be used are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import orjson
import polars as pl
from polars.datatypes import DataTypeClass

from observe.errors import BadRecord, Misconfigured
from observe.types import Json

SEPARATORS = ",;\t|"
SUFFIXES = (".parquet", ".csv", ".tsv")

Columns = Mapping[str, DataTypeClass]


def listed(folder: Path) -> list[Json]:
    """The entries of `cases.json`. Raises Misconfigured where there is none, BadRecord where it holds no list."""
    file = folder / "cases.json"
    if not file.is_file():
        raise Misconfigured(f"--data {folder}: cases.json is expected in it")
    try:
        entries = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"--data {folder}: cases.json: {error}") from error
    if not isinstance(entries, list):
        raise BadRecord(f"--data {folder}: cases.json: a list is expected")
    return entries


def table(
    folder: Path, name: str, columns: Columns, cases: Collection[str] | None = None, *, gaps: bool = False
) -> pl.DataFrame | None:
    """`columns` of the table `name`, in any of SUFFIXES, with the rows of `cases` only; None where there is none.

    Times may be dates and ids text or numbers. Rows without a text or a finite number are left out; an id that is
    missing is empty. `gaps`: rows whose last column is missing or infinite are kept. Raises Misconfigured where a
    column is missing, or nothing in it can be read.
    """
    file = next((folder / f"{name}{end}" for end in SUFFIXES if (folder / f"{name}{end}").is_file()), None)
    if file is None:
        return None
    try:
        rows = _scanned(file)
        there = rows.collect_schema()
        if missing := [column for column in columns if column not in there]:
            raise Misconfigured(f"--data {folder}: {file.name} has no column {', '.join(missing)}")
        rows = rows.select(_typed(column, there[column], kind) for column, kind in columns.items())
        if cases is not None and "case" in columns:
            rows = rows.filter(pl.col("case").is_in(list(cases)))
        found = rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Misconfigured(f"--data {folder}: {file.name}: {error}") from error
    for column, kind in columns.items():
        if found.height and found[column].null_count() == found.height and not (gaps and column == list(columns)[-1]):
            raise Misconfigured(f"--data {folder}: {file.name}: nothing in {column} can be read as {kind.__name__}")
    needed = list(columns.items())[: -1 if gaps else None]
    return found.filter(pl.all_horizontal(_usable(column, kind) for column, kind in needed))


def by_case(rows: pl.DataFrame | None) -> dict[str, pl.DataFrame]:
    """The rows of each case, in their order."""
    if rows is None:
        return {}
    parts = rows.partition_by("case", as_dict=True, include_key=False, maintain_order=True)
    return {str(key[0]): part for key, part in parts.items()}


def _scanned(file: Path) -> pl.LazyFrame:
    if file.suffix == ".parquet":
        return pl.scan_parquet(file)
    with file.open("rb") as opened:
        header = opened.readline().decode("utf-8", "replace")
    separator = max(SEPARATORS, key=header.count)
    return pl.scan_csv(file, separator=separator, infer_schema_length=10_000, ignore_errors=True)


def _typed(name: str, has: pl.DataType, wanted: DataTypeClass) -> pl.Expr:
    column = pl.col(name)
    if wanted == pl.Binary:
        if has.is_numeric():
            column = pl.when(column != 0).then(column.cast(pl.String))
        return column.cast(pl.Binary, strict=False).fill_null(b"").alias(name)
    if wanted == pl.Float64 and has.is_temporal():
        return (column.dt.epoch("us") / 1e6).alias(name)
    if wanted == pl.Int64 and has == pl.Duration:
        return column.dt.total_microseconds()
    if wanted == pl.Int64 and has.is_temporal():
        return column.dt.epoch("us")
    if wanted == pl.Int64 and not has.is_integer():
        column = column.cast(pl.Float64, strict=False)
        column = pl.when(column.is_finite()).then(column)
    return column.cast(wanted, strict=False).alias(name)


def _usable(name: str, kind: DataTypeClass) -> pl.Expr:
    told = pl.col(name).is_not_null()
    return told & pl.col(name).is_finite() if kind == pl.Float64 else told


def text_of(entry: object, *path: str) -> str:
    """A text somewhere in an entry; "" where it is not there."""
    for key in path:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return "" if entry is None else str(entry)


def texts_of(entry: object, *path: str) -> tuple[str, ...]:
    """The same for a list of texts; one text stands for itself."""
    for key in path:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return tuple(str(one) for one in entry)
    return () if entry is None else (str(entry),)
