"""Prometheus and OpenMetrics text as OTLP metrics, by the rules of the OpenTelemetry specification
(compatibility/prometheus_and_openmetrics.md): names unaltered, buckets counted one by one, types kept as metadata.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from collectors.metrics import Attributes, Instrument, Point, ResourceMetrics

UCUM: Final[Mapping[str, str]] = {
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
    "nanoseconds": "ns",
    "bytes": "By",
    "celsius": "Cel",
    "watts": "W",
    "joules": "J",
    "volts": "V",
    "amperes": "A",
    "hertz": "Hz",
    "meters": "m",
    "grams": "g",
    "ratio": "1",
    "percent": "%",
}
SAMPLE_NAME: Final = re.compile(r"^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)", re.MULTILINE)
Place = Callable[[Mapping[str, str]], tuple[ResourceMetrics, Attributes]]
"""Where a series goes: the resource that it belongs to, and the attributes of its points, from its labels."""
Series = tuple[str, tuple[tuple[str, str], ...]]


def parse(text: str, content_type: str) -> list[Metric]:
    """The metric families of a scrape. Raises ValueError where the text breaks the format."""
    if content_type.startswith("application/openmetrics-text"):
        return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
    families = list(parse_text(text))
    # The parser appends _total to every counter; many exporters write none, and names are to stay as they are.
    written = set(SAMPLE_NAME.findall(text))
    for family in families:
        if family.type == "counter":
            family.samples = [_as_written(sample, written) for sample in family.samples]
    return families


class StartTimes:
    """When each cumulative series of a target began to count: what the target says (`_created`, its process start),
    else the first time that it was seen, and again whenever its value falls."""

    def __init__(self) -> None:
        self._seen: dict[Series, tuple[int, float]] = {}
        self._next: dict[Series, tuple[int, float]] = {}
        self._created: dict[Series, int] = {}
        self._process_start_ns = 0

    def begin(self, families: Iterable[Metric]) -> None:
        """Before each scrape's series; those that the last scrape did not have are forgotten."""
        self._seen, self._next, self._created = self._next, {}, {}
        self._process_start_ns = 0
        for family in families:
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    key = (sample.name.removesuffix("_created"), _labels(sample))
                    self._created[key] = _ns(sample.value)
                elif sample.name == "process_start_time_seconds":
                    self._process_start_ns = _ns(sample.value)

    def of(self, name: str, labels: tuple[tuple[str, str], ...], value: float, now_ns: int) -> int:
        start_ns, last = self._seen.get((name, labels), (now_ns, -math.inf))
        if value < last:
            start_ns = now_ns
        self._next[name, labels] = (start_ns, value)
        return self._created.get((name, labels)) or self._process_start_ns or start_ns


def convert(families: Iterable[Metric], place: Place, starts: StartTimes, now_ns: int) -> None:
    """Adds every series to where `place` says. Samples without a number (NaN) are left out."""
    families = list(families)
    starts.begin(families)
    cumulative = {family.name for family in families if family.type in ("counter", "histogram", "summary")}
    for family in families:
        if family.type == "histogram":
            _histograms(family, place, starts, now_ns)
        elif family.type == "summary":
            _summaries(family, place, starts, now_ns)
        elif family.type == "counter":
            _counters(family, place, starts, now_ns)
        elif family.name.removesuffix("_created") not in cumulative or not family.name.endswith("_created"):
            _numbers(family, place, now_ns)


def _counters(family: Metric, place: Place, starts: StartTimes, now_ns: int) -> None:
    for sample in family.samples:
        if sample.name.endswith("_created") or math.isnan(sample.value):
            continue
        start_ns = starts.of(family.name, _labels(sample), sample.value, now_ns)
        resource, attributes = place(sample.labels)
        at = Point(attributes, _time(sample, now_ns), start_ns)
        resource.number(_instrument(family, "counter", sample.name), at, float(sample.value))


def _numbers(family: Metric, place: Place, now_ns: int) -> None:
    kind = "updown" if family.type in ("info", "stateset") else "gauge"
    for sample in family.samples:
        if not math.isnan(sample.value):
            resource, attributes = place(sample.labels)
            at = Point(attributes, _time(sample, now_ns))
            resource.number(_instrument(family, kind, sample.name), at, float(sample.value))


def _histograms(family: Metric, place: Place, starts: StartTimes, now_ns: int) -> None:
    instrument = _instrument(family, "histogram", family.name)
    for labels, samples in _grouped(family, "le"):
        cumulative = sorted((float(s.labels["le"]), s.value) for s in samples if s.name == f"{family.name}_bucket")
        count = _value(samples, f"{family.name}_count")
        if count is not None and (not cumulative or cumulative[-1][0] != math.inf):
            cumulative.append((math.inf, count))
        if not cumulative or any(math.isnan(value) for _, value in cumulative):
            continue
        start_ns = starts.of(family.name, labels, cumulative[-1][1], now_ns)
        resource, attributes = place(dict(labels))
        at = Point(attributes, _time(samples[0], now_ns), start_ns)
        resource.histogram(instrument, at, list(_single(cumulative)), _value(samples, f"{family.name}_sum"))


def _summaries(family: Metric, place: Place, starts: StartTimes, now_ns: int) -> None:
    instrument = _instrument(family, "summary", family.name)
    for labels, samples in _grouped(family, "quantile"):
        count = _value(samples, f"{family.name}_count") or 0.0
        total = _value(samples, f"{family.name}_sum") or 0.0
        quantiles = [
            (float(s.labels["quantile"]), s.value) for s in samples if s.name == family.name and not math.isnan(s.value)
        ]
        start_ns = starts.of(family.name, labels, count, now_ns)
        resource, attributes = place(dict(labels))
        at = Point(attributes, _time(samples[0], now_ns), start_ns)
        resource.summary(instrument, at, quantiles, int(count), total)


def _single(cumulative: Iterable[tuple[float, float]]) -> Iterator[tuple[float, int]]:
    below = 0
    for bound, value in cumulative:
        count = max(int(value), below)  # read while it was written: a bucket may lag behind the one before
        yield bound, count - below
        below = count


def _grouped(family: Metric, but: str) -> Iterator[tuple[tuple[tuple[str, str], ...], list[Sample]]]:
    """The samples of each series: those with the same labels but one."""
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            groups.setdefault(_labels(sample, but), []).append(sample)
    yield from groups.items()


def _instrument(family: Metric, kind: str, name: str) -> Instrument:
    unit = UCUM.get(family.unit, family.unit)
    return Instrument(name, unit, kind, family.type, family.documentation)


def _as_written(sample: Sample, written: set[str]) -> Sample:
    if sample.name in written:
        return sample
    return sample._replace(name=sample.name.removesuffix("_total"))


def _value(samples: Iterable[Sample], name: str) -> float | None:
    return next((float(s.value) for s in samples if s.name == name and not math.isnan(s.value)), None)


def _labels(sample: Sample, but: str = "") -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in sample.labels.items() if key != but))


def _time(sample: Sample, now_ns: int) -> int:
    return now_ns if sample.timestamp is None else _ns(float(sample.timestamp))


def _ns(seconds: float) -> int:
    # Microseconds are as fine as a double tells times of this century apart.
    return round(seconds * 1_000_000) * 1000 if math.isfinite(seconds) and seconds > 0 else 0
