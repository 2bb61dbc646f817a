"""Observability and anomaly detection for AI services: from OpenTelemetry spans to the root cause."""

__version__ = "0.1.0"
