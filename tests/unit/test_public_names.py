"""What a metric is about: by the names of many conventions, and by behaviour where the name says nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.diagnose.offline.kinds import behaves_like, kinds
from observe.diagnose.offline.names import kind_of, named_kind
from observe.diagnose.offline.shifts import shifts, wide

NAMES = {
    "latency": """
        clat90 slat99 latency-90 istio-latency-50 rt p99 response_time latency_p99 request_time_ms
        http_request_duration_seconds http_server_requests_seconds_max http.server.request.duration
        rpc.server.call.duration db.client.operation.duration messaging.process.duration Latency TargetResponseTime
        Duration SuccessfulRequestLatency ReadLatency IteratorAge istio_request_duration_milliseconds
        envoy_cluster_upstream_rq_time response_latency_ms traces_spanmetrics_latency traces.span.metrics.duration
        vllm:time_to_first_token_seconds""",
    "errors": """
        error istio-error-total http_server_errors_rate HTTPCode_Target_5XX_Count 5XXError UserErrors Throttles
        envoy_cluster_upstream_rq_5xx envoy_cluster_upstream_rq_timeout request_failures_total ThrottledRequests
        exceptions_total rejected_requests status_500_count""",
    "success": "availability Availability succ success_rate success_ratio istio-success-total",
    "traffic": """
        requests load workload RequestCount http_requests_total istio-request-total istio_requests_total Invocations
        http_server_requests_rate envoy_cluster_upstream_rq_total traces_spanmetrics_calls_total qps response_total
        http_server_requests_seconds_count http_request_duration_seconds_bucket redis_commands_processed_total
        mysql_global_status_queries pg_stat_database_xact_commit grpc_server_handled_total throughput""",
    "network": """
        nettx net_rx socket container-sockets container_network_receive_bytes_total NetworkIn NetworkPacketsOut
        container_network_transmit_packets_dropped_total container-network-receive-errors-total system.network.io
        node_network_receive_errs_total k8s.pod.network.errors istio_tcp_sent_bytes_total istio_response_bytes_sum
        http.server.request.body.size node_netstat_Tcp_RetransSegs envoy_cluster_upstream_cx_active net_rx_errors""",
    "resource": """
        cpu mem CPUUtilization FreeableMemory container_cpu_cfs_throttled_periods_total container-memory-failcnt
        container_memory_working_set_bytes container_fs_writes_bytes_total container-fs-io-time-seconds-total
        container-start-time-seconds container-last-seen container-threads container-file-descriptors diskio sysread
        node_load1 node_memory_MemAvailable_bytes node_disk_io_time_seconds_total node_filesystem_avail_bytes
        system.disk.operation_time process.cpu.time jvm.gc.duration jvm_gc_pause_seconds_sum go_goroutines
        jvm.thread.count process_open_fds process_uptime_seconds WriteIOPS DiskQueueDepth DatabaseConnections
        kafka_consumergroup_lag ApproximateNumberOfMessagesVisible kube_pod_container_status_restarts_total
        HealthyHostCount hikaricp_connections_pending scrape_duration_seconds http_server_requests_seconds_sum
        system.cpu.load_average.1m whatever""",
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names.split()])
def test_kinds_are_told_from_names(kind, name):
    assert kind_of(name) == kind


@given(st.sampled_from([name for names in NAMES.values() for name in names.split()]), st.sampled_from("._-: "))
def test_what_stands_between_words_does_not_matter(name, sign):
    """Where words are parted at all; case alone parts words, too."""
    assert named_kind(name.replace("_", sign).replace(".", sign).replace("-", sign)) == named_kind(name)


def _shop(seed, passed_on):
    """Latency and requests of a chain of services over time: time × 4."""
    random = np.random.default_rng(seed)
    requests = random.poisson(200 * (1 + 0.5 * np.sin(np.arange(120) / 9)))[:, None] * np.array([4, 3, 2, 1])
    own = random.gamma(20.0, 1.0, (120, 4))
    latency = np.cumsum(own[:, ::-1], axis=1)[:, ::-1] if passed_on else own
    return requests.astype(np.float64), latency


CHAIN = [(0, 1), (1, 2), (2, 3)]


@given(st.integers(0, 10**6))
def test_names_that_say_nothing_are_told_by_behaviour(seed):
    requests, latency = _shop(seed, passed_on=True)
    random = np.random.default_rng(seed)
    availability = np.where(random.random((120, 4)) < 0.1, 99.5, 100.0)
    assert behaves_like(requests, [0, 1, 2, 3], CHAIN) == "traffic"
    assert behaves_like(latency, [0, 1, 2, 3], CHAIN) == "latency"
    assert behaves_like(availability, [0, 1, 2, 3], CHAIN) == "success"
    assert behaves_like(latency, [0, 1, 2, 3], []) == "resource"
    assert behaves_like(latency[:, ::-1], [0, 1, 2, 3], CHAIN) == "resource"
    assert behaves_like(latency - 100.0, [0, 1, 2, 3], CHAIN) == "resource"


def test_names_come_before_behaviour():
    requests, _ = _shop(1, passed_on=True)
    names = pl.DataFrame({"service": list("abcd") * 2, "metric": ["cpu"] * 4 + ["m1"] * 4})
    told = kinds(np.hstack([requests, requests]), names, {("a", "b"), ("b", "c"), ("c", "d"), ("d", "nobody")})
    assert told.tolist() == ["resource"] * 4 + ["traffic"] * 4


@pytest.mark.parametrize(
    ("names", "kind"), [(("success_total", "requests"), "success"), (("success_total",), "traffic")]
)
def test_successes_told_as_numbers_are_shares_of_the_requests(names, kind):
    requests = np.where(np.arange(60) % 7 == 0, 200.0, 60.0)
    values = {"requests": requests, "success_total": np.where(np.arange(60) < 40, requests, 0.5 * requests)}
    parts = [pl.DataFrame({"time_s": np.arange(60.0), "metric": n, "value": values[n]}) for n in names]
    moved = shifts(wide(pl.concat(parts).with_columns(service=pl.lit("web"))), 40.0)
    (at,) = np.flatnonzero(moved.metric == "success_total")
    assert moved.kind[at] == kind
    assert kind == "traffic" or (moved.before[at], moved.after_high[at]) == (0.0, 0.5)
