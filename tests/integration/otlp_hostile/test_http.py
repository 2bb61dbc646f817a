"""Senders over HTTP: what is taken, what is refused and how."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest
from google.rpc.code_pb2 import Code

from collectors.otlp import OtlpReceiver
from observe.stream import otlp
from tests.fixtures.memory import MemoryProducer
from tests.integration.otlp_hostile.parts import GOOD, MIB, SPAN_JSON, TRUNCATED
from tests.integration.otlp_parts import (
    JSON,
    PATHS,
    PROTOBUF,
    SIGNALS,
    post,
    raw,
    request,
    running,
    status_of,
)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("packed", [False, True])
def test_http_protobuf(receiver: OtlpReceiver, producer: MemoryProducer, signal: Any, packed: bool) -> None:
    body = request(signal).SerializeToString()
    headers = {"Content_Type": f"{PROTOBUF}; charset=utf-8"} | ({"Content_Encoding": "gzip"} if packed else {})
    answer = post(receiver.http_address, PATHS[signal], gzip.compress(body) if packed else body, **headers)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, PROTOBUF, b"")
    assert [record.value for record in producer.records] == [body]
    assert producer.items(signal) == 3


def test_http_json(receiver: OtlpReceiver, producer: MemoryProducer) -> None:
    answer = post(receiver.http_address, "/v1/traces", json.dumps(SPAN_JSON).encode(), Content_Type=JSON)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, JSON, b"{}")
    (record,) = producer.records
    assert not otlp.is_json(record.value)
    span = otlp.decode("spans", record.value).resource_spans[0].scope_spans[0].spans[0]  # type: ignore[attr-defined]
    assert span.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1790000000 * 10**9, 1790000001 * 10**9)


@pytest.mark.parametrize(
    ("content_type", "body"), [(PROTOBUF, b""), (JSON, b"{}"), (JSON, b'{"resourceSpans":[]}'), (PROTOBUF, b"\x0a\x00")]
)
def test_http_empty_request_is_a_success(
    receiver: OtlpReceiver, producer: MemoryProducer, content_type: str, body: bytes
) -> None:
    answer = post(receiver.http_address, "/v1/traces", body, Content_Type=content_type)
    assert answer.status_code == 200
    assert answer.content == (b"{}" if content_type == JSON else b"")
    assert producer.records == []


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        pytest.param("/v1/traces", TRUNCATED, {"Content_Type": PROTOBUF}, 400, Code.INVALID_ARGUMENT, id="truncated"),
        pytest.param(
            "/v1/traces", b"{}", {"Content_Type": PROTOBUF}, 400, Code.INVALID_ARGUMENT, id="json as protobuf"
        ),
        pytest.param("/v1/traces", GOOD, {"Content_Type": JSON}, 400, Code.INVALID_ARGUMENT, id="protobuf as json"),
        pytest.param("/v1/traces", b"", {"Content_Type": JSON}, 400, Code.INVALID_ARGUMENT, id="nothing as json"),
        pytest.param("/v1/traces", b"[]", {"Content_Type": JSON}, 400, Code.INVALID_ARGUMENT, id="array as json"),
        pytest.param(
            "/v1/traces",
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"nothex!!"}]}]}]}',
            {"Content_Type": JSON},
            400,
            Code.INVALID_ARGUMENT,
            id="id not hex",
        ),
        pytest.param(
            "/v1/traces",
            GOOD,
            {"Content_Type": PROTOBUF, "Content_Encoding": "gzip"},
            400,
            Code.INVALID_ARGUMENT,
            id="no gzip",
        ),
        pytest.param(
            "/v1/traces",
            gzip.compress(GOOD)[:-9],
            {"Content_Type": PROTOBUF, "Content_Encoding": "gzip"},
            400,
            Code.INVALID_ARGUMENT,
            id="gzip cut off",
        ),
        pytest.param(
            "/v1/traces",
            GOOD,
            {"Content_Type": PROTOBUF, "Content_Encoding": "br"},
            415,
            Code.INVALID_ARGUMENT,
            id="brotli",
        ),
        pytest.param("/v1/traces", GOOD, {"Content_Type": "text/plain"}, 415, Code.INVALID_ARGUMENT, id="text"),
        pytest.param("/v1/traces", GOOD, {}, 415, Code.INVALID_ARGUMENT, id="no content type"),
        pytest.param("/v1/spans", GOOD, {"Content_Type": PROTOBUF}, 404, Code.NOT_FOUND, id="unknown path"),
        pytest.param("/", GOOD, {"Content_Type": PROTOBUF}, 404, Code.NOT_FOUND, id="root"),
    ],
)
def test_http_refusals(
    receiver: OtlpReceiver,
    producer: MemoryProducer,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: int,
) -> None:
    answer = post(receiver.http_address, path, body, **headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == (PROTOBUF if headers.get("Content_Type") == PROTOBUF else JSON)
    stated, message = status_of(answer)
    assert stated == code
    assert message
    assert "retry-after" not in answer.headers
    assert producer.records == []


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/traces", 405), ("PUT", "/v1/logs", 405), ("GET", "/", 404)]
)
def test_http_other_methods(receiver: OtlpReceiver, method: str, path: str, status: int) -> None:
    answer = raw(receiver.http_address, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["message"]
    assert (b"allow: POST" in head) == (status == 405)


def test_what_is_no_http_at_all_does_no_harm(receiver: OtlpReceiver) -> None:
    assert raw(receiver.http_address, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400")
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(GOOD)}\r\n\r\n"
    raw(receiver.http_address, head.encode() + GOOD[:10], close=True)
    assert post(receiver.http_address, "/v1/traces", GOOD, Content_Type=PROTOBUF).status_code == 200


@pytest.mark.parametrize("stated", [True, False], ids=["content-length", "chunked"])
def test_http_plain_body_of_100_mib(receiver: OtlpReceiver, producer: MemoryProducer, stated: bool) -> None:
    body: Any = bytes(100 * MIB) if stated else (bytes(MIB) for _ in range(100))
    answer = post(receiver.http_address, "/v1/traces", body, Content_Type=PROTOBUF)
    assert answer.status_code == 413
    assert status_of(answer)[0] == Code.RESOURCE_EXHAUSTED
    assert "retry-after" not in answer.headers
    assert producer.records == []


def test_http_gzip_body_of_100_mib_and_a_bomb_take_no_memory(receiver: OtlpReceiver) -> None:
    headers = {"Content_Type": PROTOBUF, "Content_Encoding": "gzip"}
    small = gzip.compress(bytes(100 * MIB), 9)
    bomb = small * 40  # 4 GB in 4 MB
    tracemalloc.start()
    try:
        for body in (small, bomb):
            answer = post(receiver.http_address, "/v1/traces", body, **headers)
            assert (answer.status_code, status_of(answer)[0]) == (413, Code.RESOURCE_EXHAUSTED)
        assert tracemalloc.get_traced_memory()[1] < 200 * MIB
    finally:
        tracemalloc.stop()


def test_http_at_the_limit(producer: MemoryProducer) -> None:
    body = request("logs", 1, 100_000 - 120).SerializeToString()
    producer.records.clear()
    with running(producer, max_request_bytes=len(body)) as receiver:
        assert post(receiver.http_address, "/v1/logs", body, Content_Type=PROTOBUF).status_code == 200
        packed = gzip.compress(body)
        headers = {"Content_Type": PROTOBUF, "Content_Encoding": "gzip"}
        assert post(receiver.http_address, "/v1/logs", packed, **headers).status_code == 200
        longer = body + b"\x7a\x00"  # an unknown field
        assert post(receiver.http_address, "/v1/logs", longer, Content_Type=PROTOBUF).status_code == 413
        assert post(receiver.http_address, "/v1/logs", gzip.compress(longer), **headers).status_code == 413
    assert producer.items("logs") == 2


def test_ids_of_a_wrong_length_are_for_the_store_to_judge(receiver: OtlpReceiver, producer: MemoryProducer) -> None:
    bad = request("spans")
    bad.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
    bad.resource_spans[0].scope_spans[0].spans[1].span_id = b""
    body = bad.SerializeToString()
    assert post(receiver.http_address, "/v1/traces", body, Content_Type=PROTOBUF).status_code == 200
    assert [record.value for record in producer.records] == [body]
