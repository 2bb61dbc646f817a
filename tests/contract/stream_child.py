"""A process of its own for tests that kill it: `python -m tests.contract.stream_child produce|consume URL GROUP`."""

from __future__ import annotations

import sys
import time

from observe.settings import KafkaSettings, Settings
from observe.stream import open_stream
from observe.types import BatchLimits

SHORT = KafkaSettings(client={"session.timeout.ms": "2000", "heartbeat.interval.ms": "300"})


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def produce(url: str) -> None:
    """Sends numbered records for ever; prints a number once it is acknowledged."""
    producer = open_stream(Settings(stream=url)).producer()
    number = 0
    while True:
        futures = [
            (n, producer.send("otlp_logs", b"%d" % n, headers={"items": b"1"})) for n in range(number, number + 20)
        ]
        for n, future in futures:
            future.result(60)
            say(str(n))
        number += 20


def consume(url: str, group: str) -> None:
    """Intends one batch, prints its token, and hangs as if the store took its time."""
    stream = open_stream(Settings(stream=url, kafka=SHORT))
    consumer = stream.consumer(group, ["otlp_spans"], BatchLimits(max_records=3, max_age_s=0.1))
    while (batch := consumer.poll(1.0)) is None:
        pass
    consumer.intend(batch)
    say(batch.token)
    time.sleep(600)


if __name__ == "__main__":
    {"produce": produce, "consume": consume}[sys.argv[1]](*sys.argv[2:])
