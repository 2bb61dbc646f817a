"""What an answer promises: while the stream is slow, full or gone, and while the receiver stops."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collectors.otlp import OtlpReceiver
from observe.errors import BadRecord, Misconfigured, Unavailable
from observe.telemetry import REFUSED
from tests.fixtures.memory import MemoryProducer
from tests.integration.otlp_hostile.parts import GOOD, MIB, SPAN_JSON
from tests.integration.otlp_parts import (
    JSON,
    METHODS,
    PROTOBUF,
    call,
    details_of,
    post,
    raw,
    request,
    running,
    status_of,
)


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
    producer = MemoryProducer(delay_s=1.5)
    with running(producer) as receiver:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        raw(receiver.http_address, head.encode() + GOOD, close=True)
        with grpc.insecure_channel(receiver.grpc_address) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(METHODS["spans"])(GOOD, timeout=0.8)
        assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        deadline = time.monotonic() + 60
        while len(producer.futures) < 2 or not all(future.done() for future in producer.futures):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not any(future.cancelled() for future in producer.futures)
        assert receiver.bytes_under_way() == 0


def test_bytes_under_way_are_bounded() -> None:
    producer = MemoryProducer(held=True)
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
        while len(codes) + len(producer.futures) < 6:  # who is not refused waits for the stream
            time.sleep(0.01)
        producer.release()
        for thread in threads:
            thread.join()
        taken = sum(code in ("200", "OK") for code in codes)
        refused = sum(code in ("503", "UNAVAILABLE") for code in codes)
        assert taken in (1, 2)  # one, where two that were half read stood in each other's way
        assert refused == 6 - taken
        assert REFUSED.labels("logs", "unavailable")._value.get() - before == refused
        assert receiver.bytes_under_way() == 0
        assert call(receiver.grpc_address, "logs", body) == b""


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
        receiver.stop(30.0)
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
        assert time.monotonic() - began < 20.0
        assert codes == [503]


def test_stop_without_start() -> None:
    from observe.settings import OtlpSettings

    OtlpReceiver(MemoryProducer(), OtlpSettings()).stop()
