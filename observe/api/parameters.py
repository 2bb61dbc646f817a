"""Query parameters: parsed, bounded, and refused with a text that names them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from observe.errors import BadRecord
from observe.noticed import Noticed, ranges
from observe.types import WINDOW_NS
from observe.wire import from_rfc3339

SECOND_NS = 10**9
SETTLE_NS = 12 * SECOND_NS
"""Spans come up to this much after they end; newer windows would look like a drop in traffic."""
MAX_WINDOWS_RANGE_S = 24 * 3600
LAST_NS = 7_258_118_400 * SECOND_NS
MAX_ROWS_RANGE_S = 31 * 24 * 3600


def time_ns(value: object) -> object:
    """Nanoseconds of an RFC 3339 text; a "+" that a query string turned into a blank is read as meant."""
    if not isinstance(value, str):
        return value
    try:
        found_ns = from_rfc3339(re.sub(r"(T[\d:.]+) (\d\d:\d\d)$", r"\1+\2", value))
    except (BadRecord, OverflowError) as error:
        raise ValueError(str(error)) from error
    if not 0 <= found_ns < LAST_NS:
        raise ValueError("a time from 1970 to 2199 is allowed")
    return found_ns


Time = Annotated[int, BeforeValidator(time_ns), WithJsonSchema({"type": "string", "format": "date-time"})]
Text = Annotated[str, Field(max_length=500)]
TRACE_ID = r"^[0-9a-fA-F]{32}$"


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Range(Parameters):
    from_: Time | None = Field(None, alias="from", description="default: one hour before `to`")
    to: Time | None = Field(None, description="default: now")

    def bounds(self, now_ns: int, longest_s: int = MAX_ROWS_RANGE_S) -> tuple[int, int]:
        """[from, to) in ns. Raises BadRecord where it is empty or longer than allowed."""
        to_ns = now_ns if self.to is None else self.to
        from_ns = to_ns - 3600 * SECOND_NS if self.from_ is None else self.from_
        if from_ns >= to_ns:
            raise BadRecord("from: must be before to")
        if to_ns - from_ns > longest_s * SECOND_NS:
            raise BadRecord(f"from: at most {longest_s / 3600:g} h before to is allowed")
        return from_ns, to_ns

    def settled(self, now_ns: int) -> tuple[int, int]:
        """The same on whole windows, and by default only those whose spans have come."""
        from_ns, to_ns = self.bounds(now_ns - SETTLE_NS, MAX_WINDOWS_RANGE_S)
        to_ns = max(to_ns // WINDOW_NS * WINDOW_NS, from_ns + 1)
        return from_ns // WINDOW_NS * WINDOW_NS, to_ns


class IncidentsQuery(Parameters):
    state: Literal["pending", "firing", "resolved"] | None = None
    from_: Time | None = Field(None, alias="from", description="incidents that were open after this")
    to: Time | None = Field(None, description="and before this")
    limit: int = Field(500, ge=1, le=5000)


class ExplainQuery(Parameters):
    format: Literal["json", "text", "markdown", "html"] = "json"


class CompareQuery(Parameters):
    of: Text = Field(description="which number")
    before: Text = Field(description="from/to, RFC 3339, window starts")
    after: Text = Field(description="from/to, likewise")
    service: Text = ""
    callee: Text = ""
    dimension: Literal["", "version", "instance", "host"] = ""
    value: list[Text] = Field(default=[], max_length=100, description="of the dimension")
    metric: Text = ""
    hw_id: Text = ""
    host: Text = ""
    instance: Text = ""
    labels: Text = ""

    def bounds(self) -> tuple[int, int, int, int]:
        """[before from, before to, after from, after to) in ns."""
        return _periods(self.before, self.after)


class LevelsQuery(Parameters):
    measure: Literal["latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "error_ratio", "requests_per_s"]
    before: Annotated[str, Field(max_length=5000)] = Field(
        description="ranges from/to of window starts, RFC 3339, with commas between them"
    )
    after: Annotated[str, Field(max_length=5000)] = Field(description="likewise, later")
    service: Text
    operation: Text = ""
    kind: Text = "Server"

    def asked(self) -> Noticed:
        """Raises BadRecord where the ranges are none, overlap, or are longer than allowed together."""
        before, after = ranges("before", self.before), ranges("after", self.after)
        if before[-1][1] > after[0][0]:
            raise BadRecord("before: must end where after begins, or earlier")
        if after[-1][1] - before[0][0] > MAX_WINDOWS_RANGE_S * SECOND_NS or before[0][0] < 0 or after[-1][1] >= LAST_NS:
            raise BadRecord(f"before: at most {MAX_WINDOWS_RANGE_S / 3600:g} h before the end of `after` is allowed")
        return Noticed(self.measure, self.service, self.operation, self.kind, before, after)


class AttributesQuery(Parameters):
    service: Text
    operation: Text
    kind: Text = "Server"
    slower_than_ms: float = Field(0, ge=0, le=1e9, description="0: failing requests")
    requests: int = Field(0, ge=0, description="how many there are to sample from; 0: all are read")
    before: Text = Field(description="from/to, RFC 3339, window starts")
    after: Text = Field(description="from/to, likewise")
    of: Text = Field("", description="with key and value: the counts of this one; whose spans carry it")
    key: Text = ""
    value: Text = ""

    def bounds(self) -> tuple[int, int, int, int]:
        """[before from, before to, after from, after to) in ns."""
        return _periods(self.before, self.after)


def _periods(before: str, after: str) -> tuple[int, int, int, int]:
    bounds = (*_interval("before", before), *_interval("after", after))
    if bounds[3] - bounds[0] > MAX_WINDOWS_RANGE_S * SECOND_NS:
        raise BadRecord(f"before: at most {MAX_WINDOWS_RANGE_S / 3600:g} h before the end of `after` is allowed")
    return bounds


def _interval(name: str, text: str) -> tuple[int, int]:
    first, slash, last = text.partition("/")
    from_ns, to_ns = from_rfc3339(first), from_rfc3339(last) if slash else 0
    if not 0 <= from_ns < to_ns < LAST_NS:
        raise BadRecord(f"{name} = {text!r}: two times with a / between them, the earlier first, are allowed")
    return from_ns, to_ns


class WindowsQuery(Range):
    service: Text
    operation: Text = Field("", description="default: all spans through which requests enter the service")
    step_s: float = Field(0, ge=0, le=86400, description="length of a step; default: as needed for at most 720 steps")


class GraphQuery(Parameters):
    at: Time | None = Field(None, description="default: now")
    span_s: int = Field(120, ge=10, le=3600, description="how much of the past before `at` counts")
    detail: Literal["services", "operations", "places", "all"] = Field(
        "all", description="places are instances, hosts and GPUs"
    )


class AtQuery(Parameters):
    at: Time | None = Field(None, description="default: now")


class OperationsQuery(Range):
    service: Text = Field("", description="default: of all services")
    limit: int = Field(100, ge=1, le=1000)


class TracesQuery(Range):
    service: Text = ""
    operation: Text = ""
    min_duration_ms: float = Field(0, ge=0, le=1e9)
    errors: bool = Field(False, description="only spans with status Error")
    attribute: list[Text] = Field(
        default=[], max_length=8, description="key=value of a span or its resource; repeat for more, all must hold"
    )
    order: Literal["newest", "slowest"] = "newest"
    limit: int = Field(20, ge=1, le=500)

    def attributes(self) -> dict[str, str]:
        for pair in self.attribute:
            if not pair.partition("=")[0] or "=" not in pair:
                raise BadRecord(f"attribute = {pair!r}: key=value is allowed")
        return {key: value for key, _, value in (pair.partition("=") for pair in self.attribute)}


class MetricsQuery(Range):
    name: Text = Field("", description="default: the list of names; with a name, its series")
    service: Text = ""
    labels: Text = Field("", description="part of the series' labels, e.g. model_name=llama")
    step_s: float = Field(0, ge=0, le=86400)


class LogsQuery(Range):
    service: Text = ""
    trace_id: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{32})?$")] = ""
    text: Text = Field("", description="part of the body, in any case")
    severity: Literal["", "trace", "debug", "info", "warn", "error", "fatal"] = Field("", description="this or worse")
    limit: int = Field(100, ge=1, le=1000)


class ReplayBody(Parameters):
    from_: Time = Field(alias="from")
    to: Time


class SilenceBody(Parameters):
    service: Text = Field("*", description="shell pattern")
    comment: Text = ""
    ends_at: Time


class DiagnosisQuery(Parameters):
    at: Time = Field(description="when it began")
    service: Text = Field("", description="where it was noticed; default: where users come in")
    to: Time | None = Field(None, description="what came later does not count; default: ten minutes after `at`")

    def until(self, now_ns: int) -> int:
        """End of what is compared, on whole windows whose spans have come. Raises BadRecord where none is left."""
        asked_ns = self.at + 600 * SECOND_NS if self.to is None else self.to
        until_ns = min(asked_ns, now_ns - SETTLE_NS) // WINDOW_NS * WINDOW_NS
        if until_ns <= self.at:
            raise BadRecord("at: must be before `to`, and long enough ago for a window of ten seconds to have come")
        if until_ns - self.at > MAX_WINDOWS_RANGE_S * SECOND_NS:
            raise BadRecord(f"to: at most {MAX_WINDOWS_RANGE_S / 3600:g} h after `at` is allowed")
        return until_ns


class CanaryQuery(Range):
    service: Text
    baseline: Text = Field(description="service.version of the old one")
    candidate: Text = Field(description="service.version of the new one")


class LabelBody(Parameters):
    from_: Time = Field(alias="from")
    to: Time
    service: Text = Field("", description="default: any")
    cause: Text = Field("", description="the service or resource that was to blame, where known")
    name: Text = ""


class BacktestBody(Parameters):
    from_: Time = Field(alias="from")
    to: Time
    settings: dict[str, Any] = Field(
        default={}, max_length=100, description="dotted keys of detect, diagnose, alert, slo and canary"
    )
    labels: list[LabelBody] = Field(default=[], max_length=1000, description="what is known to have happened")
