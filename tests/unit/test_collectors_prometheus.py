"""Prometheus and OpenMetrics text as OTLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from collectors.metrics import Attributes, MetricsRequest, ResourceMetrics
from collectors.prometheus import StartTimes, convert, parse

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND


def converted(
    text: str, content_type: str = TEXT, starts: StartTimes | None = None, now_ns: int = NOW
) -> dict[str, Any]:
    """Metrics by name."""
    request = MetricsRequest("tests")
    resource = request.resource({"service.name": "llm"})

    def place(labels: Mapping[str, str]) -> tuple[ResourceMetrics, Attributes]:
        return resource, labels

    convert(parse(text, content_type), place, starts or StartTimes(), now_ns)
    return {metric.name: metric for metric in request.message.resource_metrics[0].scope_metrics[0].metrics}


def attributes(point: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


def test_counters_keep_their_names_with_and_without_total() -> None:
    metrics = converted(
        """# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="m"} 12.0
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="r",version="1"} 7
# TYPE odd counter
odd_total 3
"""
    )
    assert sorted(metrics) == ["nv_inference_request_success", "odd_total", "vllm:prompt_tokens_total"]
    tokens = metrics["vllm:prompt_tokens_total"]
    assert (tokens.sum.is_monotonic, tokens.sum.aggregation_temporality) == (True, 2)
    (point,) = tokens.sum.data_points
    assert (point.as_double, point.time_unix_nano, attributes(point)) == (12.0, NOW, {"model_name": "m"})
    assert {pair.key: pair.value.string_value for pair in tokens.metadata} == {"prometheus.type": "counter"}


def test_gauges_and_untyped_are_gauges_and_nan_is_nothing() -> None:
    metrics = converted("# TYPE g gauge\ng 2.5\nplain 3 1700000000123\n# TYPE n gauge\nn NaN\n")
    assert sorted(metrics) == ["g", "plain"]
    assert metrics["g"].gauge.data_points[0].as_double == 2.5
    assert metrics["plain"].gauge.data_points[0].time_unix_nano == 1_700_000_000_123_000_000
    assert {pair.value.string_value for pair in metrics["plain"].metadata} == {"unknown"}


def test_histogram_buckets_count_alone() -> None:
    text = """# TYPE vllm:ttft_seconds histogram
vllm:ttft_seconds_bucket{le="0.1",model_name="a"} 2
vllm:ttft_seconds_bucket{le="0.5",model_name="a"} 5
vllm:ttft_seconds_bucket{le="+Inf",model_name="a"} 6
vllm:ttft_seconds_count{model_name="a"} 6
vllm:ttft_seconds_sum{model_name="a"} 1.75
vllm:ttft_seconds_bucket{le="0.1",model_name="b"} 0
vllm:ttft_seconds_bucket{le="0.5",model_name="b"} 0
vllm:ttft_seconds_bucket{le="+Inf",model_name="b"} 1
vllm:ttft_seconds_count{model_name="b"} 1
vllm:ttft_seconds_sum{model_name="b"} 9
"""
    histogram = converted(text)["vllm:ttft_seconds"].histogram
    first, second = histogram.data_points
    assert histogram.aggregation_temporality == 2
    assert (list(first.explicit_bounds), list(first.bucket_counts)) == ([0.1, 0.5], [2, 3, 1])
    assert (first.count, first.sum, attributes(first)) == (6, 1.75, {"model_name": "a"})
    assert (list(second.bucket_counts), second.count, attributes(second)) == ([0, 0, 1], 1, {"model_name": "b"})


def test_histogram_without_its_last_bucket_and_one_that_was_read_while_it_changed() -> None:
    text = """# TYPE h histogram
h_bucket{le="1"} 4
h_bucket{le="2"} 3
h_count 5
h_sum 1
"""
    (point,) = converted(text)["h"].histogram.data_points
    assert (list(point.explicit_bounds), list(point.bucket_counts), point.count) == ([1, 2], [4, 0, 1], 5)


def test_summary() -> None:
    text = '# TYPE s summary\ns{quantile="0.5"} 4.5\ns{quantile="0.99"} NaN\ns_sum 17560\ns_count 2693\n'
    (point,) = converted(text)["s"].summary.data_points
    assert [(value.quantile, value.value) for value in point.quantile_values] == [(0.5, 4.5)]
    assert (point.count, point.sum) == (2693, 17560.0)


def test_openmetrics_units_created_info_and_stateset() -> None:
    metrics = converted(
        """# TYPE request_seconds histogram
# UNIT request_seconds seconds
request_seconds_bucket{le="1.0"} 1
request_seconds_bucket{le="+Inf"} 1
request_seconds_count 1
request_seconds_sum 0.5
request_seconds_created 1700000000.5
# TYPE build info
build_info{version="1"} 1
# TYPE mode stateset
mode{mode="fast"} 1
mode{mode="slow"} 0
# EOF
""",
        OPENMETRICS,
    )
    assert metrics["request_seconds"].unit == "s"
    assert metrics["request_seconds"].histogram.data_points[0].start_time_unix_nano == 1_700_000_000_500_000_000
    assert not metrics["build_info"].sum.is_monotonic
    assert [point.as_double for point in metrics["mode"].sum.data_points] == [1, 0]


def test_created_gauges_of_the_text_form_are_start_times_and_no_metrics() -> None:
    metrics = converted(
        """# TYPE a_total counter
a_total 3
# TYPE a_created gauge
a_created 1.7e9
# TYPE b_created gauge
b_created 5
"""
    )
    assert sorted(metrics) == ["a_total", "b_created"]
    assert metrics["a_total"].sum.data_points[0].start_time_unix_nano == 1_700_000_000 * SECOND


def test_a_counter_that_falls_begins_anew() -> None:
    starts = StartTimes()

    def start(value: float, now_ns: int) -> int:
        metric = converted(f"# TYPE c counter\nc {value}\n", starts=starts, now_ns=now_ns)["c"]
        return int(metric.sum.data_points[0].start_time_unix_nano)

    assert [start(5, NOW), start(9, NOW + SECOND), start(2, NOW + 2 * SECOND), start(3, NOW + 3 * SECOND)] == [
        NOW,
        NOW,
        NOW + 2 * SECOND,
        NOW + 2 * SECOND,
    ]


def test_the_start_of_the_process_is_the_start_of_its_counters() -> None:
    metrics = converted(
        "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1700000000\n# TYPE c counter\nc 1\n"
    )
    assert metrics["c"].sum.data_points[0].start_time_unix_nano == 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("text", "content_type"),
    [("<html>not metrics</html>", TEXT), ("x 1\n", OPENMETRICS), ('x{a="1} 2\n', TEXT), ("x one\n", TEXT)],
)
def test_what_is_no_exposition_is_an_error(text: str, content_type: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text, content_type)
