"""What a metric is about, told from its name, whoever named it. Names that say nothing are told
by how they behave: `kinds.py`.

The rules know the words of Prometheus exporters (cAdvisor, node, kube-state, JVM, databases), Istio, Envoy, Linkerd,
AWS CloudWatch, OpenTelemetry's conventions and what benchmarks abbreviate. A name is read as words: `ReadIOPS`,
`read_iops` and `read.iops` are the same.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["latency", "errors", "counts", "success", "traffic", "network", "resource"]

# The first that matches wins. What a machine or process says of itself comes first: packets that a network card drops
# fail no request by themselves, and time that a disk is busy is nobody's latency.
_RULES: tuple[tuple[Kind, str], ...] = (
    (
        "resource",
        r"uptime|_start_time|_boot_|last_seen|_spec_|limit|quota|approximate|host_count|replica|_ready_|scrape|_info_",
    ),
    ("resource", r"cpu|mem(?!ber)|heap|gpu|_gc_|garbage|swap|oom|goroutine|_load(_avg|_average|_?\d)"),
    ("resource", r"disk|filesystem|_fs_|_file|descriptor|_inode|iops|(?<!network)_io_|blkio|_thread|volume|storage"),
    ("network", r"_net|network|_(rx|tx|tcp|udp|nic|cx)_|socket|packet|retrans|receive|transmit|conntrack"),
    (
        "network",
        r"_(in|out|sent|recv|received|ingress|egress|request|response|body|payload)_(bytes|size|octets|body_size)",
    ),
    ("network", r"_bytes_(in|out|sent|recv|received)"),
    ("traffic", r"(duration|latency|seconds|time|milliseconds|ms)_(count|bucket)_"),
    ("resource", r"(duration|latency|seconds|time|milliseconds|ms)_sum_"),  # grows with traffic: work, not a wait
    ("latency", r"success\w*_(latency|duration|time)|timeout_(ms|seconds)"),
    ("errors", r"err|fail|abort|5xx|4xx|_[45]\d\d_|except|timeout|drop|reject|refus|throttl|fault|unhealthy|deadlock"),
    ("errors", r"rollback|dead_letter|_retr(y|ies)_|_shed_|evict"),
    ("success", r"availab(?!le)|_avail_|succ|_2xx_|_healthy_"),
    ("latency", r"lat|dur|delay|elapsed|response_time|_rt_|_time|_age_|_p\d\d+_|\dp\d\d_|_ttf[bt]_|(?<=[a-z])p?\d\d_$"),
    (
        "latency",
        r"response(?!\w*_(total|count|s)_)|_(ms|millis|milliseconds|seconds|micros|nanos)(_(max|mean|avg))?_",
    ),
    ("resource", r"read|write|queue|pool|backlog|_lag_|connection|pending|waiting|consumer_group|restart|_state_"),
    ("traffic", r"req|_rq_|load|count|calls|tps|qps|rps|hits|throughput|invocation|response|message|queries|commands"),
    ("traffic", r"operations|_ops_|xact|commits|transaction|processed|publish|visits|sessions|_handled_|_started_"),
)
_OUTWARD = re.compile(r"_(client|upstream|outbound|outgoing|clat\d*)_")
_TO_NOBODY_KNOWN = re.compile(r"_(db|database|sql|redis|gen_ai|llm)_")
"""Calls of databases and models: whom they go to is seldom a service of the data."""
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _RULES)


def words(metric: str) -> str:
    """The name as lower-case words between underscores.

    >>> words("TargetResponseTime"), words("http.server.request.duration"), words("latency-90")
    ('_target_response_time_', '_http_server_request_duration_', '_latency_90_')
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", metric)
    return "_" + re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_") + "_"


def named_kind(metric: str) -> Kind | None:
    """What the name says; None where it says nothing.

    >>> [named_kind(name) for name in ("clat90", "availability", "requests", "nettx", "cpu", "request_latency", "foo")]
    ['latency', 'success', 'traffic', 'network', 'resource', 'latency', None]
    """
    text = words(metric)
    return next((kind for kind, pattern in _COMPILED if pattern.search(text)), None)


def kind_of(metric: str) -> Kind:
    """The same, and a resource, which may move either way, where the name says nothing."""
    return named_kind(metric) or "resource"


def is_outward(metric: str) -> bool:
    """Whether a latency is that of calls which the service makes, measured at its own end.

    >>> [is_outward(name) for name in ("rpc.client.duration", "clat90", "http_server_duration", "db_client_duration")]
    [True, True, False, False]
    """
    text = words(metric)
    return bool(_OUTWARD.search(text)) and not _TO_NOBODY_KNOWN.search(text)
