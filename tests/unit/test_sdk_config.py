"""What instrument() decides from its arguments and the OTEL_* variables."""

from __future__ import annotations

from typing import Any

import pytest

from observe.errors import Misconfigured
from observe.sdk.config import Config, resolve


def decide(environ: dict[str, str] | None = None, **changes: Any) -> Config:
    given: dict[str, Any] = {
        "service_name": "shop",
        "endpoint": None,
        "resource": {},
        "schedule_delay_ms": 1000,
        "metric_interval_ms": 5000,
        "kafka_client": {},
        "partition_traces_by_id": False,
    }
    return resolve(environ or {}, **given | changes)


def test_an_endpoint_gets_the_path_of_each_signal():
    assert decide(endpoint="http://collector:4318/").endpoints == {
        "TRACES": "http://collector:4318/v1/traces",
        "METRICS": "http://collector:4318/v1/metrics",
        "LOGS": "http://collector:4318/v1/logs",
    }


def test_brokers_are_an_endpoint_too():
    brokers = "kafka://b1:9092,b2:9092"
    assert set(decide(endpoint=f"{brokers}/").endpoints.values()) == {brokers}
    one_elsewhere = decide({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:4318/v1/logs"}, endpoint=brokers)
    assert one_elsewhere.endpoints == {"TRACES": brokers, "METRICS": brokers}
    with pytest.raises(Misconfigured, match="host:port"):
        decide(endpoint="kafka://")


def test_variables_win_over_arguments():
    config = decide(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:4318",
            "OTEL_SERVICE_NAME": "named-outside",
            "OTEL_RESOURCE_ATTRIBUTES": "host.name=outer,team=search",
            "OTEL_BSP_SCHEDULE_DELAY": "250",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        },
        endpoint="http://collector:4318",
        resource={"host.name": "inner", "service.version": "1.2"},
    )
    assert config.endpoints == {}
    assert not {"service.name", "host.name"} & set(config.resource)
    assert config.resource["service.version"] == "1.2"
    assert config.schedule_delay_ms is None
    assert config.metric_interval_ms is None


def test_one_signal_may_go_elsewhere():
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:1/v1/traces"}
    assert set(decide(environ, endpoint="http://collector:4318").endpoints) == {"METRICS", "LOGS"}


def test_every_process_has_an_instance_and_a_host():
    assert {"service.name", "service.instance.id", "host.name"} <= set(decide().resource)


def test_grpc_and_silence_can_be_chosen_by_variables():
    config = decide({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_LOGS_EXPORTER": "none"})
    assert config.protocols == {"TRACES": "grpc", "METRICS": "grpc"}
    assert config.exporters["LOGS"] == "none"


@pytest.mark.parametrize(
    ("environ", "changes", "named"),
    [
        ({}, {"service_name": None}, "OTEL_SERVICE_NAME"),
        ({}, {"endpoint": "collector:4318"}, "endpoint = 'collector:4318'"),
        ({}, {"schedule_delay_ms": 0}, "schedule_delay_ms"),
        ({}, {"metric_interval_ms": -1}, "metric_interval_ms"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere"}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "ftp://x"}, {}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, {}, "http/protobuf, grpc"),
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, {}, "OTEL_TRACES_EXPORTER"),
    ],
)
def test_what_cannot_work_is_named(environ: dict[str, str], changes: dict[str, Any], named: str):
    with pytest.raises(Misconfigured, match=named):
        decide(environ, **changes)
