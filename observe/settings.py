"""All settings: `observe.toml`, then `OBSERVE_…` variables (`OBSERVE_DETECT__P99_MIN_INCREASE=0.5`), then options.

Checked once at start. An unknown key or a value out of range raises Misconfigured, which names it and what is allowed.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from observe.errors import Misconfigured
from observe.types import Json

PREFIX = "OBSERVE_"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(Section):
    """Used where `stream` is kafka://…"""

    partitions: int = Field(3, ge=1, description="partitions of each topic that `migrate` creates")
    replication_factor: int = Field(1, ge=1, description="copies of each topic that `migrate` creates")
    retention_hours: float = Field(72.0, gt=0, description="how long topics keep records")
    max_message_bytes: int = Field(8 * 2**20, ge=100_000, description="largest record, on topics and in the producer")
    client: dict[str, str] = Field(
        default_factory=dict, description="passed to librdkafka as they are: security.protocol, sasl.mechanisms, …"
    )


class LocalSettings(Section):
    """Used where `stream` is local://…"""

    partitions: int = Field(1, ge=1, le=64, description="partitions of each topic")
    retention_hours: float = Field(24.0, gt=0, description="committed records older than this go")
    retention_bytes: int = Field(
        4 * 2**30, ge=2**20, description="committed records beyond this are dropped, oldest first"
    )
    max_pending_bytes: int = Field(
        2 * 2**30, ge=2**20, description="uncommitted bytes at which producers are told to wait"
    )
    max_message_bytes: int = Field(64 * 2**20, ge=1024, description="largest record")


class WriterSettings(Section):
    group: str = Field("observe-writer", description="consumer group of the writers")
    batch_max_bytes: int = Field(
        0,
        ge=0,
        description="an insert holds at most this much, at least 1024; 0: 64 MiB beside a ClickHouse server, 32 MiB"
        " with chdb://, whose memory is the writer's",
    )
    batch_max_records: int = Field(10_000, ge=1, description="and this many records")
    batch_max_age_s: float = Field(
        2.0,
        gt=0,
        description="and waits at most this long for more; batches of metrics, dearer and less urgent, 2.5 times",
    )
    threads: int = Field(
        1,
        ge=1,
        le=16,
        description="batches stored at once by one process, each up to batch_max_bytes: as many as it has"
        " cores and partitions to read, and memory (about 600 MiB each with chdb://)",
    )

    @field_validator("batch_max_bytes")
    @classmethod
    def room_for_a_record(cls, value: int) -> int:
        if 0 < value < 1024:
            raise ValueError("0 or at least 1024 is allowed")
        return value


class RetentionSettings(Section):
    traces_days: int = Field(14, ge=1, description="also the oldest event time that is accepted")
    logs_days: int = Field(14, ge=1, description="likewise")
    metrics_days: int = Field(30, ge=1, description="likewise")
    rollups_days: int = Field(90, ge=1, description="windows, edges, incidents")
    operations: int = Field(
        200, ge=1, description="distinct operations of a service that rollups tell apart; the rest is `(other)`"
    )
    diagnoses_days: int = Field(30, ge=1, description="what diagnoses were made from, for audits and replays")


class OtlpSettings(Section):
    grpc: str = Field("127.0.0.1:4317", description="address of OTLP/gRPC")
    http: str = Field("127.0.0.1:4318", description="address of OTLP/HTTP")
    max_request_bytes: int = Field(64 * 2**20, ge=1024, description="after decompression")
    max_bytes_under_way: int = Field(256 * 2**20, ge=1024, description="of all requests; beyond it senders must wait")
    partition_traces_by_id: bool = Field(
        False,
        description="a record for each trace, keyed by its id as a Collector's kafkaexporter does: for other readers of"
        " the topics, at several times the cost",
    )


class GpuCollectorSettings(Section):
    enabled: bool | Literal["auto"] = Field("auto", description="auto: where an NVIDIA driver is found")
    interval_s: float = Field(10.0, gt=0, description="how often")
    dcgm_urls: tuple[str, ...] = Field((), description="DCGM exporters, http://host:9400/metrics")


class ScrapeTarget(Section):
    url: str
    service: str = ""
    instance: str = ""


class InferenceCollectorSettings(Section):
    targets: tuple[ScrapeTarget, ...] = Field((), description="vLLM, SGLang, TGI, Triton: {url, service, instance}")
    interval_s: float = Field(10.0, gt=0, description="how often")


class HostCollectorSettings(Section):
    enabled: bool = Field(False, description="this host's own metrics with `observe up`")
    interval_s: float = Field(10.0, gt=0, description="how often")


class CollectSettings(Section):
    otlp: OtlpSettings = OtlpSettings()
    gpu: GpuCollectorSettings = GpuCollectorSettings()
    inference: InferenceCollectorSettings = InferenceCollectorSettings()
    host: HostCollectorSettings = HostCollectorSettings()


class Rule(Section):
    """A fixed threshold beside the statistical tests, e.g. error_ratio > 0.2 for 30 s."""

    name: str
    service: str = Field("*", description="shell pattern")
    operation: str = Field("*", description="shell pattern")
    measure: str = Field(
        description="latency_p50_ms latency_p95_ms latency_p99_ms error_ratio requests_per_s or a metric"
    )
    above: float | None = None
    below: float | None = None
    for_s: float = Field(0.0, ge=0)
    keep_firing_for_s: float = Field(0.0, ge=0)
    severity: Literal["critical", "warning", "info"] = "warning"

    @model_validator(mode="after")
    def one_bound(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError(f"rule {self.name!r} needs exactly one of `above` and `below`")
        return self


class DetectSettings(Section):
    settle_s: float = Field(
        12.0, ge=0, description="how long a window waits for its spans, less where all sources are past it"
    )
    max_lag_s: float = Field(60.0, ge=0, description="a source that is always late is waited for at most this long")
    lateness_s: float = Field(
        300.0, ge=0, le=3600, description="spans that come this late make the looks at their windows again"
    )
    current_s: float = Field(30.0, ge=10, description="how much of the newest past is compared with the baseline")
    baseline_s: float = Field(3600.0, ge=60, description="trailing baseline")
    min_baseline_s: float = Field(90.0, ge=30, description="history needed before a series is tested")
    min_requests: int = Field(20, ge=1, description="current requests needed to judge a quantile or a rate")
    p99_min_increase: float = Field(0.30, gt=0, description="relative change of P99 worth telling")
    p99_min_increase_ms: float = Field(2.0, ge=0, description="and at least this much")
    error_min_increase: float = Field(0.02, gt=0, description="change of the error ratio worth telling")
    error_min_ratio: float = Field(2.0, ge=1, description="and at least this many times the baseline")
    traffic_min_change: float = Field(0.5, gt=0, description="relative change of requests/s worth telling")
    max_false_discoveries: float = Field(
        0.001, gt=0, lt=1, description="Benjamini–Hochberg level over all tests of a tick"
    )
    seasons: bool = Field(True, description="what came at the same time on earlier days or weeks is no news")
    time_zone: str = Field(
        "UTC", description="whose days: where clocks change, jobs and people that go by them move, Europe/Berlin"
    )
    new_normal_s: float = Field(
        6 * 3600.0, ge=60, le=7 * 86400, description="a level that stays this long is the new baseline"
    )
    rules: tuple[Rule, ...] = Field(
        (), description="fixed thresholds: {name, service, operation, measure, above or below, for_s, severity}"
    )

    @field_validator("time_zone")
    @classmethod
    def known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError) as error:  # of which the last means that there is none of this name
            raise ValueError(f"{value!r} is no time zone, like UTC or Europe/Berlin") from error
        return value


class Objective(Section):
    """What users are promised of one service: a share of requests that succeed, or that are fast enough."""

    name: str
    service: str
    operation: str = Field("*", description="shell pattern")
    model: str = Field("", description="shell pattern; only calls of these models count")
    target: float = Field(gt=0, lt=1, description="share of good requests, 0.999")
    latency_ms: float | None = Field(None, gt=0, description="good = faster than this; without it good = no error")


class BurnRate(Section):
    """The error budget burns at least `rate` times too fast over both ranges."""

    rate: float = Field(gt=0)
    long_s: float = Field(ge=300, le=7 * 86400)
    short_s: float = Field(ge=60)
    severity: Literal["critical", "warning", "info"] = "warning"

    @model_validator(mode="after")
    def short_is_shorter(self) -> Self:
        if self.short_s >= self.long_s:
            raise ValueError(f"short_s = {self.short_s:g} must be less than long_s = {self.long_s:g}")
        return self


class SloSettings(Section):
    objectives: tuple[Objective, ...] = Field(
        (), description="promises: {name, service, operation, model, target, latency_ms}"
    )
    days: int = Field(30, ge=1, le=90, description="the error budget is for this long, up to now")
    min_bad_requests: int = Field(5, ge=1, description="fewer bad requests in the long range never page")
    burn_rates: tuple[BurnRate, ...] = Field(
        (
            BurnRate(rate=14.4, long_s=3600, short_s=300, severity="critical"),
            BurnRate(rate=6.0, long_s=6 * 3600, short_s=900, severity="warning"),
        ),
        description="when to page: {rate, long_s, short_s, severity}",
    )

    @model_validator(mode="after")
    def names_differ(self) -> Self:
        names = [objective.name for objective in self.objectives]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two objectives are named {twice[0]!r}: an alert must say which it means")
        return self


class CanarySettings(Section):
    automatic: bool = Field(True, description="compare a new service.version with the old one beside it, and alert")
    min_requests: int = Field(200, ge=20, description="requests that each version needs for a verdict")
    max_false_rollbacks: float = Field(0.01, gt=0, lt=0.5, description="chance that an equal version is rolled back")


class DiagnoseSettings(Section):
    max_causes: int = Field(5, ge=1, description="how many candidates an incident lists")
    min_confidence: float = Field(0.4, ge=0, le=1, description="below this the first cause is `unknown`")
    calls: tuple[str, ...] = Field(
        (), description='who calls whom where no spans say so: "caller -> callee", for systems that send metrics only'
    )
    attributes: bool = Field(
        True, description="look into traces and logs for what sets bad requests apart, ends them early, or is said"
    )
    keep_inputs_mb: float = Field(
        64.0, ge=0, description="what a diagnosis was made from is kept where it is no larger than this; 0: never"
    )

    @field_validator("calls")
    @classmethod
    def two_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for call in value:
            if len([part for part in call.split("->") if part.strip()]) != 2:
                raise ValueError(f'{call!r}: "caller -> callee" is allowed')
        return value


class WebhookSettings(Section):
    url: str
    name: str = Field("", description="stable name for logs and for what was sent; default: host and a hash of the URL")
    format: Literal["alertmanager", "standard", "slack", "pagerduty"] = "alertmanager"
    secret: str = Field("", description="whsec_…, signs the body by Standard Webhooks; routing key for pagerduty")
    send_resolved: bool = True
    timeout_s: float = Field(15.0, gt=0)

    @field_validator("url")
    @classmethod
    def http_only(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("http", "https"):
            raise ValueError(f"{value!r} is no http:// or https:// URL")
        return value


class AlertSettings(Section):
    for_s: float = Field(10.0, ge=0, description="how long an incident is pending before it fires")
    keep_firing_for_s: float = Field(60.0, ge=0, description="how long nothing must be seen before it is resolved")
    repeat_s: float = Field(4 * 3600.0, ge=60, description="a firing incident is told again after this long")
    webhooks: tuple[WebhookSettings, ...] = Field(
        (), description="receivers: {url, format, secret, send_resolved, timeout_s, name}"
    )
    external_url: str = Field(
        "http://127.0.0.1:8501", description="where people reach the dashboard; links point there"
    )


class ApiSettings(Section):
    address: str = Field("127.0.0.1:8080", description="address of the API")


class DashboardSettings(Section):
    enabled: bool = Field(True, description="pages with `observe up`")
    address: str = Field("127.0.0.1:8501", description="address of the pages")
    api_url: str = Field("http://127.0.0.1:8080", description="the API that the dashboard asks")


class LogSettings(Section):
    format: Literal["text", "json"] = Field("text", description="text or json, on stderr")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning, error")


class Settings(Section):
    """Everything. `stream` and `store` choose the deployment."""

    data: Path = Field(Path("observe-data"), validate_default=True, description="folder of the one-machine default")
    stream: str = Field("", description="local:///path | kafka://broker:9092[,broker…]; default local://<data>/stream")
    store: str = Field("", description="chdb:///path | clickhouse://user:pw@host:8123/db; default chdb://<data>/store")
    kafka: KafkaSettings = KafkaSettings()
    local: LocalSettings = LocalSettings()
    writer: WriterSettings = WriterSettings()
    retention: RetentionSettings = RetentionSettings()
    collect: CollectSettings = CollectSettings()
    detect: DetectSettings = DetectSettings()
    slo: SloSettings = SloSettings()
    canary: CanarySettings = CanarySettings()
    diagnose: DiagnoseSettings = DiagnoseSettings()
    alert: AlertSettings = AlertSettings()
    api: ApiSettings = ApiSettings()
    dashboard: DashboardSettings = DashboardSettings()
    log: LogSettings = LogSettings()

    @field_validator("data", mode="after")
    @classmethod
    def absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def urls(self) -> Self:
        # Frozen models forbid assignment; defaults that depend on another field are set once, here.
        if not self.stream:
            object.__setattr__(self, "stream", f"local://{self.data / 'stream'}")
        if not self.store:
            object.__setattr__(self, "store", f"chdb://{self.data / 'store'}")
        for name, value, allowed in (
            ("stream", self.stream, ("local", "kafka")),
            ("store", self.store, ("chdb", "clickhouse", "clickhouses")),
        ):
            if urlsplit(value).scheme not in allowed:
                raise ValueError(
                    f"{name} = {value!r}: the scheme must be one of {', '.join(f'{s}://' for s in allowed)}"
                )
        return self


def load(
    file: Path | None = None, environ: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from the file, then the variables, then the options (dotted keys; None = not given)."""
    tree: Json = {}
    if file is not None:
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise Misconfigured(f"{file}: {error}") from error
    known = dict(known_keys(Settings))
    for name, value in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(PREFIX):
            _put(tree, _dotted(name, known), value)
    for key, value in (options or {}).items():
        if value is not None:
            _put(tree, key, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise Misconfigured("\n".join(_say(e, known) for e in error.errors())) from error


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with some of them (dotted keys) replaced."""
    tree = settings.model_dump()
    for key, value in values.items():
        _put(tree, key, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise Misconfigured("\n".join(_say(e, dict(known_keys(Settings))) for e in error.errors())) from error


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every settable key in dotted form with its description; sections themselves included."""
    for name, field in model.model_fields.items():
        yield prefix + name, field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")


def table() -> str:
    """All settings as a Markdown table: `python -m observe.settings > docs/settings.md` renews the page."""
    rows = ["# Settings", "", "| key | variable | default | |", "|---|---|---|---|"]
    defaults: Any = Settings.model_construct().model_dump()
    for key, about in known_keys(Settings):
        value: Any = defaults
        for part in key.split("."):
            value = value[part]
        if not isinstance(value, dict) or not value:
            shown = "" if value in ("", (), {}) else f"`{value}`"
            rows.append(f"| `{key}` | `{variable(key)}` | {shown} | {about.replace('|', 'or')} |")
    return "\n".join(rows) + "\n"


def variable(key: str) -> str:
    """The environment variable of a dotted key.

    >>> variable("detect.settle_s")
    'OBSERVE_DETECT__SETTLE_S'
    """
    return PREFIX + key.upper().replace(".", "__")


def _dotted(name: str, known: Mapping[str, str]) -> str:
    key = name.removeprefix(PREFIX).lower().replace("__", ".")
    if key in known or key.startswith("kafka.client."):
        return key.replace("_", ".") if key.startswith("kafka.client.") else key
    raise Misconfigured(f"{name} is not a setting{_nearest(variable(key), [variable(k) for k in known])}")


def _put(tree: Json, key: str, value: Any) -> None:
    *sections, last = key.split(".", 2) if key.startswith("kafka.client.") else key.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            raise Misconfigured(f"{section} = {inner!r}: a section is needed here, to hold {key}")
        tree = inner
    if isinstance(value, str) and value[:1] in "[{":
        with contextlib.suppress(tomllib.TOMLDecodeError):  # a plain text may begin with a bracket too
            value = tomllib.loads(f"v = {value}")["v"]
    tree[last] = value


def _say(error: Any, known: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key} is not a setting{_nearest(key, list(known))}"
    return f"{key + ' = ' + repr(error['input']) + ': ' if key else ''}{error['msg'].removeprefix('Value error, ')}"


def _nearest(key: str, known: list[str]) -> str:
    match = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; did you mean {match[0]}?" if match else ""


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201 - this is the page
