"""What the receivers answer to everything that is not a good request, by the OTLP specification."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collectors.otlp import OtlpReceiver
from observe.errors import BadRecord, Misconfigured, Unavailable
from observe.stream import otlp
from observe.telemetry import REFUSED
from tests.fixtures.memory import MemoryProducer
from tests.integration.otlp_parts import (
    JSON,
    METHODS,
    PATHS,
    PROTOBUF,
    SIGNALS,
    call,
    details_of,
    post,
    raw,
    request,
    running,
    status_of,
)

MIB = 2**20
GOOD = request("spans").SerializeToString()
TRUNCATED = GOOD[:-5]
SPAN_JSON = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "eee19b7ec3c1b174",
                            "name": "pay",
                            "kind": 2,
                            "startTimeUnixNano": "1790000000000000000",
                            "endTimeUnixNano": 1790000001000000000,
                            "somethingNew": {"deep": [1, 2, 3]},
                        }
                    ]
                }
            ],
            "alsoNew": None,
        }
    ]
}


@pytest.fixture(scope="module")
def producer() -> MemoryProducer:
    return MemoryProducer()


@pytest.fixture(scope="module")
def shared(producer: MemoryProducer) -> Iterator[OtlpReceiver]:
    with running(producer) as receiver:
        yield receiver


@pytest.fixture
def receiver(shared: OtlpReceiver, producer: MemoryProducer) -> OtlpReceiver:
    producer.records.clear()
    return shared


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── gRPC ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_grpc(receiver: OtlpReceiver, producer: MemoryProducer, signal: Any, compression: grpc.Compression) -> None:
    body = request(signal).SerializeToString()
    assert call(receiver.grpc_address, signal, body, compression=compression) == b""
    assert [record.value for record in producer.records] == [body]
    assert producer.items(signal) == 3
    assert call(receiver.grpc_address, signal, b"") == b""
    assert len(producer.records) == 1


@pytest.mark.parametrize("body", [TRUNCATED, b"{}", b"\xff" * 20])
def test_grpc_bad_data(receiver: OtlpReceiver, producer: MemoryProducer, body: bytes) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(receiver.grpc_address, "spans", body)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert list(details_of(refused.value).details) == []
    assert producer.records == []


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_grpc_body_of_100_mib(receiver: OtlpReceiver, compression: grpc.Compression) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(receiver.grpc_address, "spans", bytes(100 * MIB), compression=compression)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-status-details-bin" not in dict(refused.value.trailing_metadata())


def test_grpc_body_of_50_mib(producer: MemoryProducer, receiver: OtlpReceiver) -> None:
    body = request("logs", 100, MIB // 2).SerializeToString()
    assert call(receiver.grpc_address, "logs", body) == b""
    assert producer.items("logs") == 100
    assert len(producer.records) > 6
    assert max(len(record.value) for record in producer.records) <= producer.max_record_bytes


def test_grpc_unknown_service(receiver: OtlpReceiver) -> None:
    with grpc.insecure_channel(receiver.grpc_address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(METHODS["spans"].replace("Export", "Import"))(GOOD, timeout=5.0)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ── the stream behind them ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["refuses", "fails"])
@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Unavailable("the disk is full", retry_after_s=2.5), 503, "3"),
        (BadRecord("too large for the broker"), 413, None),
        (ZeroDivisionError("a bug"), 503, "5"),
    ],
)
def test_a_stream_that_does_not_take_it(how: str, error: Exception, status: int, retry: str | None) -> None:
    producer = MemoryProducer(delay_s=0.02)
    setattr(producer, how, error)
    if how == "refuses" and isinstance(error, BadRecord):
        status = 400
    with running(producer) as receiver:
        for content_type, body in ((PROTOBUF, GOOD), (JSON, json.dumps(SPAN_JSON).encode())):
            answer = post(receiver.http_address, "/v1/traces", body, Content_Type=content_type)
            assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry)
            assert "bug" not in status_of(answer)[1]
        with pytest.raises(grpc.RpcError) as refused:
            call(receiver.grpc_address, "spans", GOOD)
        retryable = refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert retryable == (retry is not None)
        info = RetryInfo()
        assert retryable == any(detail.Unpack(info) for detail in details_of(refused.value).details)
        assert retryable == (info.retry_delay.ToTimedelta().total_seconds() > 0)


def test_nothing_is_acknowledged_before_the_stream_has_it() -> None:
    producer = MemoryProducer(delay_s=0.4)
    with running(producer) as receiver:
        for send in (
            lambda: post(receiver.http_address, "/v1/traces", GOOD, Content_Type=PROTOBUF).raise_for_status(),
            lambda: call(receiver.grpc_address, "spans", GOOD),
        ):
            began = time.monotonic()
            send()
            assert time.monotonic() - began >= 0.39
            assert all(future.done() for future in producer.futures)


def test_a_sender_that_hangs_up_does_not_cancel_the_record() -> None:
    producer = MemoryProducer(delay_s=0.4)
    with running(producer) as receiver:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        raw(receiver.http_address, head.encode() + GOOD, close=True)
        with grpc.insecure_channel(receiver.grpc_address) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(METHODS["spans"])(GOOD, timeout=0.2)
        assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        deadline = time.monotonic() + 5
        while len(producer.futures) < 2 or not all(future.done() for future in producer.futures):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not any(future.cancelled() for future in producer.futures)
        assert receiver.bytes_under_way() == 0


def test_bytes_under_way_are_bounded() -> None:
    producer = MemoryProducer(delay_s=1.5)
    body = request("logs", 6, MIB).SerializeToString()
    with running(producer, max_request_bytes=7 * MIB, max_bytes_under_way=14 * MIB) as receiver:
        before = REFUSED.labels("logs", "unavailable")._value.get()
        codes: list[str] = []

        def over_http() -> None:
            codes.append(str(post(receiver.http_address, "/v1/logs", body, Content_Type=PROTOBUF).status_code))

        def over_grpc() -> None:
            try:
                call(receiver.grpc_address, "logs", body)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)

        threads = [threading.Thread(target=target) for target in (over_http, over_grpc) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = sum(code in ("200", "OK") for code in codes)
        refused = sum(code in ("503", "UNAVAILABLE") for code in codes)
        assert taken in (1, 2)  # one, where two that were half read stood in each other's way
        assert refused == 6 - taken
        assert REFUSED.labels("logs", "unavailable")._value.get() - before == refused
        assert receiver.bytes_under_way() == 0
        assert call(receiver.grpc_address, "logs", body) == b""


# ── large requests ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_item_that_no_record_can_hold_is_rejected_and_the_others_kept() -> None:
    producer = MemoryProducer(max_record_bytes=100_000)
    spans = request("spans", 50, 10_000)
    spans.resource_spans[0].scope_spans[0].spans[7].name = "y" * 150_000
    body = spans.SerializeToString()
    with running(producer) as receiver:
        answer = post(receiver.http_address, "/v1/traces", body, Content_Type=PROTOBUF)
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
        assert (answer.status_code, partial.rejected_spans) == (200, 1)
        assert "100000 bytes" in partial.error_message
        assert producer.items("spans") == 49
        as_json = post(receiver.http_address, "/v1/traces", to_json(spans), Content_Type=JSON)
        assert as_json.json()["partialSuccess"]["rejectedSpans"] == "1"
        over_grpc = ExportTraceServiceResponse.FromString(call(receiver.grpc_address, "spans", body))
        assert over_grpc.partial_success.rejected_spans == 1


def to_json(spans: Any) -> bytes:
    tree = MessageToDict(spans, use_integers_for_enums=True)
    for span, source in zip(
        tree["resourceSpans"][0]["scopeSpans"][0]["spans"],
        spans.resource_spans[0].scope_spans[0].spans,
        strict=True,
    ):
        span["traceId"], span["spanId"] = source.trace_id.hex(), source.span_id.hex()
    return json.dumps(tree).encode()


# ── start and stop ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_address_that_is_taken(receiver: OtlpReceiver, producer: MemoryProducer, protocol: str) -> None:
    taken = getattr(receiver, f"{protocol}_address")
    with (
        pytest.raises(Misconfigured, match=rf"collect\.otlp\.{protocol} = '{taken}'"),
        running(producer, **{protocol: taken}),
    ):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:99999", "nowhere.invalid:0", "::1:4317"])
def test_an_address_that_is_none(producer: MemoryProducer, address: str) -> None:
    for protocol in ("grpc", "http"):
        with (
            pytest.raises(Misconfigured, match=rf"collect\.otlp\.{protocol} = '{address}'"),
            running(producer, **{protocol: address}),
        ):
            pass


def test_stop_finishes_what_is_under_way_and_refuses_what_is_new() -> None:
    producer = MemoryProducer(delay_s=0.6)
    with running(producer) as receiver:
        results: list[object] = []
        threads = [
            threading.Thread(target=lambda: results.append(call(receiver.grpc_address, "spans", GOOD))),
            threading.Thread(
                target=lambda: results.append(
                    post(receiver.http_address, "/v1/traces", GOOD, Content_Type=PROTOBUF).status_code
                )
            ),
        ]
        for thread in threads:
            thread.start()
        while len(producer.futures) < 2:
            time.sleep(0.01)
        receiver.stop(5.0)
        for thread in threads:
            thread.join()
        assert {str(result) for result in results} == {"b''", "200"}
        with pytest.raises(grpc.RpcError) as refused:
            call(receiver.grpc_address, "spans", GOOD)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ConnectionRefusedError):
            raw(receiver.http_address, b"")


def test_stop_does_not_wait_for_ever() -> None:
    producer = MemoryProducer(delay_s=30.0)
    with running(producer) as receiver:
        codes: list[int] = []
        thread = threading.Thread(
            target=lambda: codes.append(
                post(receiver.http_address, "/v1/traces", GOOD, Content_Type=PROTOBUF).status_code
            )
        )
        thread.start()
        while not producer.futures:
            time.sleep(0.01)
        began = time.monotonic()
        receiver.stop(1.0)
        thread.join()
        assert time.monotonic() - began < 4.0
        assert codes == [503]


def test_stop_without_start() -> None:
    from observe.settings import OtlpSettings

    OtlpReceiver(MemoryProducer(), OtlpSettings()).stop()
