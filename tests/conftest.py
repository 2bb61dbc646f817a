"""Fixtures of all suites. Real servers: `kafka_bootstrap` (Apache Kafka), `clickhouse_url` (ClickHouse over HTTP)."""

from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

pytest_plugins = ["tests.fixtures.kafka", "tests.fixtures.clickhouse", "tests.fixtures.stores"]
