"""Stores telemetry and answers about it: ClickHouse, in this process or on a server."""

from observe.store.clickhouse import ClickHouseStore
from observe.store.connect import enter

__all__ = ["ClickHouseStore", "enter"]
