"""The store's parts that need no database."""

from __future__ import annotations

import re
import socket
from io import BytesIO

import numpy as np
import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import given
from hypothesis import strategies as st

from observe.errors import BadRecord, Misconfigured, Unavailable
from observe.store import ClickHouseStore, otlp, rollups
from observe.store.connect import target, translated, whole_frame
from observe.store.migrate import RETENTION, migrations
from observe.store.rollups import LOOKBACK_S, REACH_S, SLACK_S, Reach
from observe.types import SIGNALS, Signal
from tests.fixtures.records import batch

COUNTS = {"window_s": pl.Int64, "spans": pl.Int64, "duration_max_ns": pl.Int64}


def counts(*rows: tuple[int, int, float]) -> pl.DataFrame:
    data = [(window, spans, int(longest_s * 1e9)) for window, spans, longest_s in rows]
    return pl.DataFrame(data, schema=COUNTS, orient="row")


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_field_of_the_schema_is_a_column(signal: Signal) -> None:
    text = otlp.columns(signal)
    assert text.count("(") == text.count(")")
    fields = set(re.findall(r"^\s*(?:repeated )?\w+ (\w+) = \d+;$", otlp.proto(signal), re.MULTILINE))
    assert {f for f in fields if not re.search(rf"\b{f} ", text) and f"'{f}'" not in text} == set()


@given(first=st.integers(0, 2**62), count=st.integers(1, 3), items=st.integers(0, 2**40), partition=st.integers(0, 999))
def test_the_origin_of_a_batch_can_be_read_back(first: int, count: int, items: int, partition: int) -> None:
    encoded = otlp.origin(batch("otlp_spans", partition, first, *[b""] * count), items, 5, 2**63)
    numbers = _numbers(encoded)
    assert numbers == [partition, first, first + count - 1, count, items, 5, 2**63]


def _numbers(encoded: bytes) -> list[int]:
    """The varint fields of an Origin message, by the protobuf encoding."""
    values, shift, value = [], 0, 0
    for byte in encoded:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            shift = value = 0
    # Tag and length of the message, tag and length of the topic, its characters; then tag and number in turn.
    assert values[0] == otlp.ORIGIN_FIELD << 3 | 2
    return values[4 + len("otlp_spans") :][1::2]


def test_every_table_with_days_in_it_has_a_retention() -> None:
    text = "\n".join(statement for _, statements in migrations() for statement in statements)
    dated = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+) \(.*?ENGINE = (\w+)(.*?)(?=CREATE|\Z)", text, re.DOTALL)
    small = {"operations"}  # some thousand rows, dropped one by one: not in days
    assert {name for name, _, rest in dated if "PARTITION BY toDate" in rest} == set(RETENTION) - small


def test_every_table_that_a_view_writes_to_remembers_its_blocks() -> None:
    text = "\n".join(statement for _, statements in migrations() for statement in statements)
    targets = set(re.findall(r"CREATE MATERIALIZED VIEW IF NOT EXISTS \w+ TO (\w+)", text))
    tables = dict(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+) \((.*?)(?=\nCREATE|\Z)", text, re.DOTALL))
    forgetful = {t for t in targets if "non_replicated_deduplication_window = 10000" not in tables[t]}
    assert {t for t in forgetful if "ENGINE = Null" not in tables[t]} == set()


@pytest.mark.parametrize(
    "url", ["chdb://relative/path", "chdb:", "clickhouse://", "http://host/db", "clickhouse:///db", "sqlite:///x"]
)
def test_a_store_url_that_points_nowhere_is_misconfigured(url: str) -> None:
    with pytest.raises(Misconfigured, match="store = "):
        target(url)


def test_a_store_url_names_server_and_database() -> None:
    found = target("clickhouses://me:p%40ss@db.internal/telemetry")
    assert (found.database, found.server["port"], found.server["interface"]) == ("telemetry", 8443, "https")
    assert target("clickhouse://db").database == "observe"


@pytest.mark.parametrize(
    ("code", "ours"),
    [(444, BadRecord), (241, Unavailable), (252, Unavailable), (516, Misconfigured), (9999, Unavailable)],
)
def test_an_error_of_an_insert_says_what_to_do(code: int, ours: type[Exception]) -> None:
    with pytest.raises(ours, match=str(code)), translated(inserting=True):
        raise DatabaseError(f"Code: {code}. DB::Exception: …", code=code)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("Attempt to read after eof: While executing ProtobufRowInputFormat", BadRecord),
        ("Cannot read all data. Bytes read: 4096. Bytes expected: 29692.", Unavailable),
    ],
)
def test_a_broken_file_of_the_store_is_not_taken_for_a_bad_record(text: str, ours: type[Exception]) -> None:
    with pytest.raises(ours), translated(inserting=True):
        raise DatabaseError(f"Code: 33. DB::Exception: {text}", code=33)
    with pytest.raises(Unavailable), translated():
        raise DatabaseError(f"Code: 33. DB::Exception: {text}", code=33)


@pytest.mark.parametrize("cut_off", [slice(0), slice(-8), slice(-1), slice(100)])
def test_an_answer_that_is_not_whole_is_none(cut_off: slice) -> None:
    """As a server with a full disk gives it, with status 200."""
    rows = pl.DataFrame({"offset": range(33)})
    stream = BytesIO()
    rows.write_ipc_stream(stream)
    assert whole_frame(stream.getvalue()).equals(rows)
    with pytest.raises(Unavailable, match="without its end"):
        whole_frame(stream.getvalue()[cut_off])


def test_a_part_that_cannot_be_read_is_told_as_ours() -> None:
    with pytest.raises(Unavailable, match="marks file"), translated():
        raise DatabaseError("Code: 246. DB::Exception: Empty marks file", code=246)


def test_a_wrong_query_stays_what_it_is() -> None:
    with pytest.raises(DatabaseError), translated():
        raise DatabaseError("Code: 47. DB::Exception: unknown identifier", code=47)


def test_a_window_reaches_as_far_back_as_its_longest_span() -> None:
    seen = counts((0, 1, 0.1), (500, 2, 0.1), (940, 4, 0.1), (1000, 8, 0.1), (1030, 16, 300), (1070, 32, 9999))
    reach = Reach.of(seen, 1000, 1080)
    assert reach.window_s.tolist() == [1000, 1030, 1070]
    assert reach.first_s.tolist() == [1000 - REACH_S, 1030 - 320, 1070 - LOOKBACK_S]
    assert reach.spans_in_reach.tolist() == [4 + 8 + 16, 4 + 8 + 16, 2 + 4 + 8 + 16 + 32]


def test_a_kept_answer_holds_until_spans_come_within_its_reach() -> None:
    before = counts((1000, 5, 0.1), (1010, 5, 0.1))
    kept = pl.DataFrame({"window_s": [1000, 1010], "spans": Reach.of(before, 1000, 1020).spans_in_reach})
    assert Reach.of(before, 1000, 1020).differs(kept).tolist() == [False, False]
    near = counts((1000, 5, 0.1), (1010, 5, 0.1), (1010 + SLACK_S, 1, 0.1))
    assert Reach.of(near, 1000, 1020).differs(kept).tolist() == [False, True]
    far = counts((1000, 5, 0.1), (1010, 5, 0.1), (1020 + SLACK_S, 1, 0.1))
    assert Reach.of(far, 1000, 1020).differs(kept).tolist() == [False, False]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300_000)), max_size=40, unique_by=lambda w: w[0]))
def test_chunks_cover_every_window_once(windows: list[tuple[int, int]]) -> None:
    seen = counts(*[(window * 10, spans, 0.1) for window, spans in sorted(windows)])
    reach = Reach.of(seen, 0, 10_000)
    chunks = list(reach.chunks())
    assert np.concatenate([c.window_s for c in chunks] or [np.array([])]).tolist() == reach.window_s.tolist()
    for chunk in chunks:
        assert len(chunk.window_s) == 1 or chunk.spans.sum() <= rollups.MAX_SPANS


def test_the_edge_query_is_complete() -> None:
    assert "{direct_edges}" not in rollups.sql("edge_windows")
    assert rollups.sql("edge_windows").count("UNION ALL") == 2


def test_a_server_that_is_away_at_the_start_is_waited_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        store = ClickHouseStore(f"clickhouse://127.0.0.1:{taken.getsockname()[1]}/x")
        with pytest.raises(Unavailable):
            store.migrate()
        store.close()
