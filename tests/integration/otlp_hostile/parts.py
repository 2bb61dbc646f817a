"""Bodies that hostile and unusual senders send."""

from __future__ import annotations

from tests.integration.otlp_parts import (
    request,
)

MIB = 2**20
GOOD = request("spans").SerializeToString()
TRUNCATED = GOOD[:-5]
SPAN_JSON = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "eee19b7ec3c1b174",
                            "name": "pay",
                            "kind": 2,
                            "startTimeUnixNano": "1790000000000000000",
                            "endTimeUnixNano": 1790000001000000000,
                            "somethingNew": {"deep": [1, 2, 3]},
                        }
                    ]
                }
            ],
            "alsoNew": None,
        }
    ]
}
