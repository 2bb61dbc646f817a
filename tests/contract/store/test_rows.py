"""Rows as they are read back: telemetry, incidents, silences, answers to queries."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace

from observe.store import ClickHouseStore
from observe.types import Impact, Incident, Severity, Silence, State
from tests.contract.store.parts import SECOND, insert, ledger
from tests.fixtures.records import (
    CLIENT,
    MS,
    Span,
    batch,
    logs,
    metrics,
)


def test_a_span_is_stored_with_all_its_fields(store: ClickHouseStore, place: int, base_ns: int) -> None:
    parent = Span("web", trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    linked = Span("queue")
    span = Span(
        f"all-{place}", "GET /x", 5, 7.5, parent, CLIENT, True,
        {
            "text": "a/b", "zero": 0, "no": False, "yes": True, "nil": 0.0, "half": 0.5, "bytes": b"\x00\xff",
            "empty": None, "list": ["a", 0, True, None, 1.5], "none": [], "map": {"k": "v", "n": 0}, "nothing": {},
            "deep": [[1]],
        },
        {"service.version": "1"}, [linked],
    )  # fmt: skip
    insert(store, place, [span], base_ns)
    got = store.query("SELECT * FROM otel_traces WHERE ServiceName = {s:String}", {"s": span.service}).to_dicts()[0]
    assert (got["TraceId"], got["SpanId"], got["ParentSpanId"]) == ("01" * 16, span.span_id.hex(), "02" * 8)
    assert (got["SpanKind"], got["StatusCode"], got["Duration"]) == ("Client", "Error", 7_500_000)
    assert int(got["Timestamp"].timestamp() * 1000) == base_ns // MS + 5
    assert dict(got["ResourceAttributes"]) == {"service.name": span.service, "service.version": "1"}
    assert got["Links.SpanId"] == [linked.span_id.hex()]
    text = dict(got["SpanAttributes"])
    deep = json.loads(text.pop("deep"))
    assert b64decode(deep[0]["otlp.array"]) == b"\x0a\x02\x18\x01"
    assert text == {
        "text": "a/b", "zero": "0", "no": "false", "yes": "true", "nil": "0", "half": "0.5", "bytes": "AP8=",
        "empty": "", "list": '["a",0,true,null,1.5]', "none": "[]", "map": '{"k":"v","n":0}', "nothing": "{}",
    }  # fmt: skip


def test_metrics_of_all_kinds_are_stored(store: ClickHouseStore, place: int, base_ns: int) -> None:
    service = f"kinds-{place}"
    message, found = metrics(service)
    point = found.add(name="g").gauge.data_points.add(time_unix_nano=base_ns, as_int=7)
    point.exemplars.add(time_unix_nano=base_ns, as_int=3, trace_id=b"t" * 16)
    summary = found.add(name="s").summary.data_points.add(time_unix_nano=base_ns, count=2, sum=4)
    summary.quantile_values.add(quantile=0.5, value=2)
    found.add(name="1970").gauge.data_points.add(time_unix_nano=1, as_int=7)
    store.insert(batch("otlp_metrics", place, 0, message.SerializeToString()), 3)
    gauge = store.query("SELECT * FROM otel_metrics_gauge WHERE ServiceName = {s:String}", {"s": service}).to_dicts()[0]
    assert (gauge["Value"], gauge["Exemplars.Value"], gauge["Exemplars.TraceId"]) == (7.0, [3.0], [b"t".hex() * 16])
    quantiles = store.query(
        "SELECT ValueAtQuantiles.Value AS v FROM otel_metrics_summary WHERE ServiceName = {s:String}", {"s": service}
    )
    assert quantiles["v"].to_list() == [[2.0]]
    counted = ledger(store, "otlp_metrics", place)
    assert (counted["accepted"], counted["stored"], counted["rejected"]) == (3, 2, 1)


def test_logs_are_stored(store: ClickHouseStore, place: int, base_ns: int) -> None:
    service = f"logs-{place}"
    body = logs(
        service,
        [
            {"time_unix_nano": base_ns, "body": "hello", "severity_number": 9, "severity_text": "INFO",
             "trace_id": b"t" * 16, "event_name": "greeting", "attributes": {"n": 0}},
            {"observed_time_unix_nano": base_ns, "body": {"a": [1, "b"], "c": {"d": 1}}},
            {"time_unix_nano": base_ns, "trace_id": b"short"},
            {},
        ],
    )  # fmt: skip
    store.insert(batch("otlp_logs", place, 0, body), 4)
    found = store.query(
        "SELECT * FROM otel_logs WHERE ServiceName = {s:String} ORDER BY SeverityNumber", {"s": service}
    )
    nested, hello = found.to_dicts()
    assert (hello["Body"], hello["SeverityText"], hello["EventName"]) == ("hello", "INFO", "greeting")
    assert dict(hello["LogAttributes"]) == {"n": "0"}
    assert json.loads(nested["Body"]).keys() == {"a", "c"}
    counted = ledger(store, "otlp_logs", place)
    assert (counted["accepted"], counted["stored"], counted["rejected"]) == (4, 2, 2)


def test_incidents_come_back_as_they_were_saved(store: ClickHouseStore, place: int, base_ns: int) -> None:
    def incident(name: str, version: int, onset_s: int, resolved_s: int | None = None) -> Incident:
        at = base_ns + onset_s * SECOND
        return Incident(
            id=f"{name}-{place}", version=version, state=State.FIRING if resolved_s is None else State.RESOLVED,
            severity=Severity.WARNING, title="it's \"slow\"\n", onset_ns=at, opened_ns=at, last_seen_ns=at,
            resolved_ns=None if resolved_s is None else base_ns + resolved_s * SECOND, symptoms=(), causes=(),
            impact=Impact(("a",), 3),
        )  # fmt: skip

    first, second = incident("a", 1, 0), incident("b", 2, 60)
    store.save_incidents([first, second])
    assert store.incidents(from_ns=base_ns, to_ns=base_ns + 90 * SECOND) == [second, first]
    closed = incident("a", 2, 0, 30)
    store.save_incidents([closed])
    assert closed in store.incidents(state="resolved")
    assert store.incidents(from_ns=base_ns + 40 * SECOND, to_ns=base_ns + 90 * SECOND) == [second]
    store.save_incidents([])


def test_silences_end_and_can_be_ended(store: ClickHouseStore, place: int) -> None:
    silence = Silence(f"s{place}", f"llm{place}*", "deploy", 1_000, 5_000)
    store.save_silence(silence, 1_000)
    assert [s for s in store.silences(2_000) if s.id == silence.id] == [silence]
    assert [s for s in store.silences(5_000) if s.id == silence.id] == []
    store.save_silence(replace(silence, ends_ns=3_000), 3_000)
    assert [s for s in store.silences(3_000) if s.id == silence.id] == []


def test_what_was_notified_is_remembered(store: ClickHouseStore, place: int) -> None:
    ids = [f"x-{place}", f"y-{place}"]
    for version in (1, 3, 2):
        store.save_notified(ids[0], "hook", version)
    assert store.notified(ids) == {(ids[0], "hook"): 3}
    assert store.notified([]) == {}


def test_queries_take_parameters_and_give_typed_rows(store: ClickHouseStore) -> None:
    got = store.query("SELECT {text:String} AS t, {n:UInt64} AS n, {list:Array(String)} AS l", {
        "text": "it's \\ \"\n", "n": 2**63, "list": ["a'b"],
    })  # fmt: skip
    assert got.rows() == [("it's \\ \"\n", 2**63, ["a'b"])]
    nothing = store.query("SELECT 1::UInt8 AS a WHERE 0")
    assert (nothing.height, nothing.columns) == (0, ["a"])
