"""Fixtures of all suites. Real servers: `kafka_bootstrap` (Apache Kafka), `clickhouse_url` (ClickHouse over HTTP)."""

pytest_plugins = ["tests.fixtures.kafka", "tests.fixtures.clickhouse", "tests.fixtures.stores"]
