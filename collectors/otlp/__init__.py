"""OTLP in over gRPC and HTTP: what SDKs and Collectors send is checked and put on the stream as it came."""

from collectors.otlp.receiver import OtlpReceiver

__all__ = ["OtlpReceiver"]
