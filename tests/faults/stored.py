"""What a store holds, item by item: `python -m tests.faults.stored chdb:///folder`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from observe.store import ClickHouseStore
from observe.types import SIGNALS, Signal

ITEMS: Mapping[Signal, str] = {
    "spans": "SELECT reinterpretAsUInt64(reverse(unhex(SpanId))) - 1 AS item FROM {table}",
    "logs": "SELECT toUInt64(Body) AS item FROM otel_logs",
    "metrics": "SELECT toUInt64(Value) AS item FROM otel_metrics_gauge"
    " UNION ALL SELECT toUInt64(Value) AS item FROM otel_metrics_sum",
}
WINDOWS = """
SELECT count() AS differing FROM (
    SELECT Window, sum(n) AS difference FROM (
        SELECT Window, toInt64(Requests) AS n FROM service_windows
        UNION ALL
        SELECT toDateTime(intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 10000000000) * 10, 'UTC')
            AS Window, -1 AS n FROM otel_traces
    ) GROUP BY Window HAVING difference != 0
)
"""
COUNTS = """
SELECT (SELECT sum(Requests) FROM service_windows) AS requests, (SELECT count() FROM otel_traces) AS spans,
    (SELECT uniqExact(TraceId) FROM otel_traces) AS traces,
    (SELECT uniqExact(TraceId) FROM otel_traces_trace_id_ts) AS looked_up
"""


def stored(store: ClickHouseStore) -> dict[str, Any]:
    """Every item by its number, as often as it is there; and whether the rollups say the same as the rows."""
    items = {
        signal: sorted(store.query(ITEMS[signal].replace("{table}", "otel_traces"))["item"].to_list())
        for signal in SIGNALS
    }
    counts = store.query(COUNTS).to_dicts()[0]
    return {"items": items, "differing_windows": store.query(WINDOWS).item(), **counts}


if __name__ == "__main__":
    opened = ClickHouseStore(sys.argv[1])
    sys.stdout.write(json.dumps(stored(opened)))
    opened.close()
