"""Why a request is refused, and how that is said in HTTP and in gRPC (OTLP specification, "Failures")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import orjson
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from observe.errors import BadRecord, Unavailable

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"


class TooLarge(BadRecord):
    """More bytes than are taken; sending the same again cannot help."""


class TooSlow(BadRecord):
    """The bytes did not arrive in time."""


class Malformed(BadRecord):
    """The bytes are not what they are declared to be."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` is the label in our own metrics; `retry_after_s` None means that trying again cannot help."""

    http: int
    code: int  # google.rpc.Code
    reason: str
    message: str
    retry_after_s: float | None = None


def refusal_of(error: Exception) -> Refusal:
    """What to answer to an error. One that nobody foresaw is ours, not the sender's: the data are whole, so that trying
    again is right."""
    if isinstance(error, TooLarge):
        return Refusal(413, Code.RESOURCE_EXHAUSTED, "too_large", str(error))
    if isinstance(error, TooSlow):
        return Refusal(408, Code.DEADLINE_EXCEEDED, "slow", str(error))
    if isinstance(error, BadRecord):
        return Refusal(400, Code.INVALID_ARGUMENT, "bad_data", str(error))
    if isinstance(error, Unavailable):
        return Refusal(503, Code.UNAVAILABLE, "unavailable", str(error), max(error.retry_after_s, 0.0))
    return Refusal(503, Code.UNAVAILABLE, "internal", "the request could not be stored", 5.0)


def refusal_of_head(method: str, known_path: bool, content_type: str, encoding: str) -> Refusal | None:
    """What is wrong with an HTTP request before its body is looked at; None where nothing is."""
    if not known_path:
        return Refusal(404, Code.NOT_FOUND, "unsupported", "OTLP is taken at /v1/traces, /v1/metrics and /v1/logs")
    if method != "POST":
        return Refusal(405, Code.UNIMPLEMENTED, "unsupported", f"{method} is not taken here, POST is")
    if content_type not in (PROTOBUF, JSON):
        message = f"Content-Type {content_type!r} is not taken; {PROTOBUF} and {JSON} are"
        return Refusal(415, Code.INVALID_ARGUMENT, "unsupported", message)
    if encoding not in ("", "identity", "gzip"):
        message = f"Content-Encoding {encoding!r} is not taken; gzip and none are"
        return Refusal(415, Code.INVALID_ARGUMENT, "unsupported", message)
    return None


def status_body(refusal: Refusal, content_type: str) -> bytes:
    """A google.rpc.Status in the form of the request; JSON, which people can read, where it had neither form."""
    if content_type != PROTOBUF:
        return orjson.dumps({"code": refusal.code, "message": refusal.message})
    return bytes(Status(code=refusal.code, message=refusal.message).SerializeToString())


def retry_after(refusal: Refusal) -> bytes | None:
    """The Retry-After header: whole seconds, at least one."""
    return None if refusal.retry_after_s is None else str(max(1, math.ceil(refusal.retry_after_s))).encode()


def status_details(refusal: Refusal) -> bytes:
    """The `grpc-status-details-bin` trailer: the Status, with RetryInfo only where trying again can help."""
    status = Status(code=refusal.code, message=refusal.message)
    if refusal.retry_after_s is not None:
        wait = Duration()
        wait.FromNanoseconds(int(refusal.retry_after_s * 1e9))
        status.details.add().Pack(RetryInfo(retry_delay=wait))
    return bytes(status.SerializeToString())
