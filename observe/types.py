"""The nouns that cross seams. Frozen; units stand in names; times are integer nanoseconds since the epoch, UTC."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WINDOW_NS = 10_000_000_000
"""Length of a rollup window. Windows are aligned to the epoch, and a span belongs to the window in which it *ends*."""

Signal = Literal["spans", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("spans", "metrics", "logs")
TOPICS: Mapping[Signal, str] = {"spans": "otlp_spans", "metrics": "otlp_metrics", "logs": "otlp_logs"}
DEAD_LETTERS = "otlp_dead_letters"

Json = dict[str, Any]


# ── stream ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a stream: the OTLP Export…ServiceRequest as it came, protobuf (JSON only from foreign feeders)."""

    topic: str
    partition: int
    offset: int
    value: bytes
    timestamp_ms: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition. Offsets may have gaps inside; the range is what identifies the batch.

    `epoch` tells apart topics of one name, of which a later one begins at offset 0 again: created anew, or in another
    cluster. "" where offsets never come twice."""

    records: tuple[Record, ...]
    first_offset: int
    last_offset: int
    epoch: str = ""

    @property
    def topic(self) -> str:
        return self.records[0].topic

    @property
    def partition(self) -> int:
        return self.records[0].partition

    @property
    def token(self) -> str:
        """Names the range, and so the insert: ClickHouse drops a second insert with the same token."""
        name = f"{self.topic}-{self.partition}-{self.first_offset}-{self.last_offset}"
        return f"{name}-{self.epoch}" if self.epoch else name

    @property
    def size_bytes(self) -> int:
        return sum(len(record.value) for record in self.records)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch is handed out when the first of these is reached; age counts from the arrival of its first record."""

    max_bytes: int = 8 * 2**20
    max_records: int = 10_000
    max_age_s: float = 1.0
    topic_age_s: Mapping[str, float] = field(default_factory=dict)  # where a topic's batches may be older or younger

    def age_s(self, topic: str) -> float:
        return self.topic_age_s.get(topic, self.max_age_s)


@dataclass(frozen=True, slots=True)
class Digest:
    """What is remembered of a stored record, so that the same bytes are known when they come again."""

    offset: int
    timestamp_ms: int
    digest: bytes
    repeated: int = 0  # items that were left out, because this record was a repeat itself


@dataclass(frozen=True, slots=True)
class PartitionState:
    """How far a group has come on one partition. `committed` is the next offset to read, `end` one past the last."""

    topic: str
    partition: int
    begin: int
    committed: int
    end: int


# ── detection ───────────────────────────────────────────────────────────────────────────────────────────────────────

Measure = str
"""`latency_p99_ms`, `latency_p50_ms`, `error_ratio`, `requests_per_s`, or the name of a metric."""


@dataclass(frozen=True, slots=True)
class Shift:
    """One series that moved: by how much (effect), and how surely (evidence)."""

    service: str
    operation: str
    kind: str  # span kind as in otel_traces: Server Client Internal Producer Consumer Unspecified; "Metric" for metrics
    measure: Measure
    before: float
    after: float
    unit: str  # UCUM: "ms", "1" for ratios, "{request}/s"
    p_value: float  # after control of false discoveries over all series of the tick
    samples: int  # requests in the current windows
    onset_ns: int  # start of the first window of the new level
    rule: str = ""  # name of the fixed-threshold rule that raised it; "" for the statistical test
    query: str = ""  # address on the API that gives `before` and `after` again; "" where only the look does


@dataclass(frozen=True, slots=True)
class Season:
    """What a series did at the same time in earlier cycles, beside a shift of now."""

    shift: Shift
    cycle: str  # "day", "week", or the length of a period that was found: "60 min"
    times: int  # in how many cycles it shifted like that
    out_of: int  # cycles that were compared
    low: float  # levels at that time: of the cycles that shifted, or of all where the shift is not usual
    high: float
    usual: bool  # nobody is to be told of it


@dataclass(frozen=True, slots=True)
class Interval:
    """[start_ns, end_ns) of one service in an incident ("" = all): it must not be taken for a baseline."""

    start_ns: int
    end_ns: int
    service: str = ""


# ── diagnosis ───────────────────────────────────────────────────────────────────────────────────────────────────────


class CauseKind(enum.StrEnum):
    SERVICE = "service"
    OPERATION = "operation"
    INSTANCE = "instance"
    VERSION = "version"
    RELEASE = "release"  # one release of several services
    HOST = "host"
    GPU = "gpu"
    DATABASE = "database"
    EXTERNAL = "external"
    TRAFFIC = "traffic"
    UNKNOWN = "unknown"


Numbers = tuple[tuple[str, float], ...]
"""Numbers by name, in a fixed order."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason in words with its number: kind="self_time", text="self time of llm-engine rose from 80 to 430 ms"."""

    kind: str  # self_time | edge_time | error_origin | order | correlation | contrast | resource | traffic | version …
    text: str
    numbers: Numbers = ()  # those in the text, unrounded
    query: str = ""  # address on the API that gives the numbers again; "" where only the whole diagnosis does


@dataclass(frozen=True, slots=True)
class Cause:
    """A candidate explanation. `service` is the one to look at; `resource` is set where the cause is narrower."""

    rank: int
    kind: CauseKind
    service: str
    resource: str
    score: float  # confidence, 0..1
    share: float  # part of the symptom's change that this accounts for, 0..1
    path: tuple[str, ...]  # services from the symptom to the cause
    evidence: tuple[Evidence, ...] = ()
    exemplar_trace_ids: tuple[str, ...] = ()
    services: tuple[str, ...] = ()  # that it lies in, the worst first, where they are several: a host, a release


@dataclass(frozen=True, slots=True)
class RuledOut:
    service: str
    resource: str
    because: str
    numbers: Numbers = ()  # those of `because`
    query: str = ""  # as of Evidence


@dataclass(frozen=True, slots=True)
class Impact:
    services: tuple[str, ...]
    requests_affected: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Shifts that share a cause, and what explains them, best first; weak evidence is a cause of kind unknown."""

    symptoms: tuple[Shift, ...]
    causes: tuple[Cause, ...]
    ruled_out: tuple[RuledOut, ...]
    impact: Impact


# ── alerting ────────────────────────────────────────────────────────────────────────────────────────────────────────


class State(enum.StrEnum):
    PENDING = "pending"  # seen, not yet for as long as `for` asks
    FIRING = "firing"  # people are told
    RESOLVED = "resolved"  # not seen for `keep_firing_for`; a resolved incident stays so


class Severity(enum.StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Incident:
    """What people are told. Each change that is worth telling raises `version`; a version is sent once."""

    id: str
    version: int
    state: State
    severity: Severity
    title: str
    onset_ns: int
    opened_ns: int
    last_seen_ns: int
    resolved_ns: int | None
    symptoms: tuple[Shift, ...]
    causes: tuple[Cause, ...]
    ruled_out: tuple[RuledOut, ...] = ()
    impact: Impact = field(default_factory=lambda: Impact((), 0))
    fired_ns: int | None = None
    note: str = ""  # why nobody is told (usual at this time), or why it ended though nothing went back to what it was

    @property
    def usual(self) -> bool:
        """Whether it is kept only because windows of it are no baseline: at this time things are always so."""
        return bool(self.note) and self.fired_ns is None


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told about incidents whose service matches, from `created_ns` until `ends_ns`."""

    id: str
    service: str  # shell pattern
    comment: str
    created_ns: int
    ends_ns: int

    def covers(self, service: str, now_ns: int) -> bool:
        return self.created_ns <= now_ns < self.ends_ns and fnmatch.fnmatchcase(service, self.service)


@dataclass(frozen=True, slots=True)
class Alert:
    """One version of one incident on its way to the receivers, and why it is sent."""

    incident: Incident
    reason: Literal["first", "cause_changed", "severity_changed", "resolved", "repeat"]
