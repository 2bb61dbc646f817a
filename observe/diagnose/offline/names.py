"""What a metric is about, told from its name. Names that say nothing count as a resource that may move either way."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["latency", "errors", "counts", "success", "traffic", "network", "resource"]

# The first that matches wins: "error_rate" is not traffic, "request_latency" is not traffic, "net_rx_errors" is errors.
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("resource", r"cpu|mem(?!ber)|heap|gpu"),
    ("success", r"avail|succ"),
    ("errors", r"err|fail|abort|5xx|4xx|except|timeout|drop"),
    ("network", r"net|(^|[^a-z])(rx|tx)|socket|packet|recv|receive|transmit"),
    ("latency", r"lat|dur|delay|elapsed|response|(^|[^a-z])rt($|[^a-z])|(^|[^a-z])time|p\d\d$"),
    ("resource", r"disk|fs|file|gc|thread|read|write|(^|[^a-z])io"),
    ("traffic", r"req|load|count|calls|tps|qps|rps|hits|throughput"),
)
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _PATTERNS)


def kind_of(metric: str) -> Kind:
    """
    >>> [kind_of(name) for name in ("clat90", "availability", "requests", "nettx", "cpu", "request_latency", "foo")]
    ['latency', 'success', 'traffic', 'network', 'resource', 'latency', 'resource']
    """
    low = metric.lower()
    return next((kind for kind, pattern in _COMPILED if pattern.search(low)), "resource")
