"""Senders over gRPC: what is taken, what is refused and how."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from collectors.otlp import OtlpReceiver
from tests.fixtures.memory import MemoryProducer
from tests.integration.otlp_hostile.parts import GOOD, MIB, TRUNCATED
from tests.integration.otlp_parts import (
    METHODS,
    SIGNALS,
    call,
    details_of,
    request,
)


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
        channel.unary_unary(METHODS["spans"].replace("Export", "Import"))(GOOD, timeout=60.0)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
