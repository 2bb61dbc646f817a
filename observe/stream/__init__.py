"""Where telemetry waits between collectors and the store: `local://` (SQLite) or `kafka://`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from observe.errors import Misconfigured
from observe.interfaces import Stream
from observe.settings import Settings


def open_stream(settings: Settings) -> Stream:
    """The stream that `settings.stream` names. Nothing is connected or created yet."""
    scheme, rest = urlsplit(settings.stream).scheme, settings.stream.partition("://")[2]
    if scheme == "local" and rest:
        from observe.stream.local import LocalStream

        return LocalStream(Path(unquote(rest)).expanduser(), settings.local)
    if scheme == "kafka" and rest.strip("/"):
        from observe.stream.kafka import KafkaStream  # loads librdkafka, which local users do without

        return KafkaStream(rest.strip("/"), settings.kafka)
    raise Misconfigured(f"stream = {settings.stream!r}: local:///path or kafka://broker:9092[,broker:9092…] is allowed")
