"""SQL by which ClickHouse itself reads the topics into the landing tables, instead of `observe write`.

`python -m observe.store.kafka_engine [observe.toml]` prints it. Delivery is at least once: a server that dies between
an insert and its commit reads the records again, under no token, so they count twice. `observe audit` shows that as
overlaps. Records in OTLP/JSON are not read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from observe.errors import Misconfigured
from observe.settings import Settings, load
from observe.store import otlp
from observe.types import SIGNALS, TOPICS, Signal

RECORDS_A_BLOCK = 128
"""A block holds this many records, and so at most 128 MB of what a Collector writes by default."""

FLUSH_MS = 2000
FUTURE_S = 3600
DAY_S = 86_400

SECURITY: Mapping[str, str] = {
    "security.protocol": "kafka_security_protocol",
    "sasl.mechanisms": "kafka_sasl_mechanism",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "sasl.username": "kafka_sasl_username",
    "sasl.password": "kafka_sasl_password",
}
"""librdkafka's names (settings.kafka.client) and those of the table engine."""

UNREADABLE = """CREATE TABLE IF NOT EXISTS otlp_unreadable (
    IngestedAt DateTime64(3) DEFAULT now64(3),
    Topic LowCardinality(String),
    Partition Int32,
    Offset Int64,
    Error String,
    Record String
)
ENGINE = MergeTree
ORDER BY (Topic, Partition, Offset)"""


def statements(settings: Settings) -> Iterator[str]:
    """What to run in the store's database after `observe migrate`; Misconfigured where the stream is no Kafka."""
    brokers = urlsplit(settings.stream)
    if brokers.scheme != "kafka":
        raise Misconfigured(f"stream = {settings.stream!r}: ClickHouse can read kafka:// alone")
    options = _engine_options(brokers.netloc, settings)
    yield UNREADABLE
    for signal in SIGNALS:
        yield _topic_table(signal, options)
        yield _into_landing(signal, settings)
        yield _unreadable(signal)


def removal() -> Iterator[str]:
    """Stops reading; offsets stay committed, so that `observe write` goes on where ClickHouse stopped."""
    for signal in SIGNALS:
        for name in (f"otlp_{signal}_topic_mv", f"otlp_{signal}_unreadable_mv", f"otlp_{signal}_topic"):
            yield f"DROP TABLE IF EXISTS {name} SYNC"


def _engine_options(brokers: str, settings: Settings) -> dict[str, str | int]:
    known = {SECURITY[key]: value for key, value in settings.kafka.client.items() if key in SECURITY}
    return {
        "kafka_broker_list": brokers,
        "kafka_group_name": settings.writer.group,
        "kafka_format": "ProtobufSingle",
        "kafka_num_consumers": 1,
        "kafka_max_block_size": RECORDS_A_BLOCK,
        "kafka_poll_max_batch_size": RECORDS_A_BLOCK,
        "kafka_flush_interval_ms": FLUSH_MS,
        "kafka_handle_error_mode": "stream",
        **known,
        "format_schema_source": "string",
        "format_schema_message_name": "Landing",
        "input_format_protobuf_oneof_presence": 1,
    }


def _topic_table(signal: Signal, options: Mapping[str, str | int]) -> str:
    """The topic as a table of requests. The engine takes no column that its records lack, so `origin` is left out."""
    body = ",\n".join(column for column in _columns(signal) if not column.startswith(_ORIGIN))
    given = {**options, "kafka_topic_list": TOPICS[signal], "format_schema": otlp.proto(signal)}
    settings = ",\n    ".join(f"{name} = {_literal(value)}" for name, value in given.items())
    return f"CREATE TABLE IF NOT EXISTS otlp_{signal}_topic (\n{body}\n)\nENGINE = Kafka\nSETTINGS\n    {settings}"


def _into_landing(signal: Signal, settings: Settings) -> str:
    """A record that cannot be read passes as an empty request: the ledger's offsets stay without gaps."""
    resources, items = _ITEMS[signal]
    origin = next(column for column in _columns(signal) if column.startswith(_ORIGIN)).removeprefix(_ORIGIN)
    days = getattr(settings.retention, {"spans": "traces_days"}.get(signal, f"{signal}_days"))
    return f"""CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_{signal}_topic_mv TO otlp_{signal}_in AS
SELECT
    {resources},
    CAST(
        (_topic, _partition, _offset, _offset, 1, {items},
            toUnixTimestamp(now()) * 1000000000 - {days * DAY_S} * 1000000000,
            toUnixTimestamp(now()) * 1000000000 + {FUTURE_S} * 1000000000),
        '{origin}') AS origin
FROM otlp_{signal}_topic"""


def _unreadable(signal: Signal) -> str:
    return f"""CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_{signal}_unreadable_mv TO otlp_unreadable AS
SELECT _topic AS Topic, _partition AS Partition, _offset AS Offset, _error AS Error, _raw_message AS Record
FROM otlp_{signal}_topic
WHERE _error != ''"""


_ORIGIN = "origin "
_POINTS = " + ".join(
    f"arraySum(m -> length((m).{kind}.data_points), (s).metrics)"
    for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary")
)
_ITEMS: Mapping[Signal, tuple[str, str]] = {
    "spans": ("resource_spans", "arraySum(r -> arraySum(s -> length((s).spans), (r).scope_spans), resource_spans)"),
    "logs": ("resource_logs", "arraySum(r -> arraySum(s -> length((s).log_records), (r).scope_logs), resource_logs)"),
    "metrics": ("resource_metrics", f"arraySum(r -> arraySum(s -> {_POINTS}, (r).scope_metrics), resource_metrics)"),
}


def _columns(signal: Signal) -> list[str]:
    """Name and type of each column of the landing table."""
    return otlp.columns(signal).split(",\n")


def _literal(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    try:
        given = load(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
        print(";\n\n".join(statements(given)) + ";")  # noqa: T201 - this is the result
    except Misconfigured as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(2)
