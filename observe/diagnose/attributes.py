"""Which attribute value sets the slow or failing requests apart: from the others, and from before.

Every value of every attribute is a 2 × 2 table of traces (bad or not, with the value or without). Fisher's exact test
(doi:10.2307/2340521), one-sided, gives its probability under "the value has nothing to do with it"; hundreds of values
are tested at once, so false discoveries are controlled (Benjamini and Hochberg 1995,
doi:10.1111/j.2517-6161.1995.tb02031.x).
With large samples anything is significant: a value is told only if nearly all bad requests have it, and bad requests
are far more frequent with it than without. Where nearly all requests are bad, they are compared with those before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlencode

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from observe.diagnose.graph import ENTRY_KINDS
from observe.diagnose.levels import Periods, periods
from observe.frames import BUCKETS_PER_OCTAVE, AttributeQuestion, Frames, Question
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Evidence, Numbers, Shift
from observe.wire import API_PREFIX, rfc3339

Floats = NDArray[np.float64]
Ask = Callable[[Question], pl.DataFrame]

COVER = 0.75
"""Part of the bad requests that must have the value."""
LIFT = 3.0
"""How many times more often requests with the value are bad than those without."""
FALSE_DISCOVERIES = 0.001
MIN_BAD = 20
ALL_BAD = 0.7
"""From this part of bad requests on, the others are too few, or too odd, to compare with."""
MAX_SIDE_NS, MIN_SIDE_NS = 30 * WINDOW_NS, 3 * WINDOW_NS
"""Five minutes on each side of the onset tell; after those the question stays the same, and so does its answer."""
MAX_SPANS = 500_000
"""About as many spans of each side are read: where more come, less time is looked at, three windows at least."""
MAX_TOLD = 3
MAX_ASKED = 3
SLOW = 0.99

COMMON = (
    "service", "operation", "http.", "url.", "rpc.", "server.", "net.", "messaging.", "host.", "db.", "telemetry.",
    "container.", "k8s.", "process.", "os.", "cloud.", "deployment.", "peer.", "span.",
)  # fmt: skip
"""What instrumentation gives to every span: it tells where a request went, less who asked."""
CONSEQUENCES = re.compile(
    r"error|exception|status|finish_reason|resend|retry|\.latency|duration|message|output_tokens|completion_tokens"
    r"|^thread\.|^network\.peer|^net\.(sock\.)?peer|^client\.|user_agent|^telemetry\.|^process\.pid|^url\.full|^code\."
)
"""Attributes that tell how a request ended, or that are all but ids: they follow from trouble and do not cause it."""


@dataclass(frozen=True, slots=True)
class Apart:
    """One value that sets bad requests apart; counts are of sampled traces, p is after control of false discoveries.

    The `others` are the good requests since the onset, or all requests before it.
    """

    service: str
    key: str
    value: str
    bad_with: int
    bad: int
    others_with: int
    others: int
    p_value: float
    against: Literal["others", "before"]
    alike: tuple[str, ...] = ()  # "key=value" that the very same requests have

    @property
    def cover(self) -> float:
        return self.bad_with / max(self.bad, 1)

    @property
    def elsewhere(self) -> float:
        return self.others_with / max(self.others, 1)


def with_attributes(found: Sequence[Diagnosis], frames: Frames, now_ns: int, ask: Ask) -> list[Diagnosis]:
    """The diagnoses, the first MAX_ASKED of them with what sets their bad requests apart as evidence of the first
    cause. `ask` gives ATTRIBUTE_COUNTS, and the same for the same question."""
    return [_narrowed(d, frames, now_ns, ask) if i < MAX_ASKED else d for i, d in enumerate(found)]


def _narrowed(diagnosis: Diagnosis, frames: Frames, now_ns: int, ask: Ask) -> Diagnosis:
    when = periods(min(s.onset_ns for s in diagnosis.symptoms), now_ns, frames.selfs)
    if when is None or not diagnosis.causes or diagnosis.causes[0].kind is CauseKind.TRAFFIC:
        return diagnosis
    top = diagnosis.causes[0].path[0] if diagnosis.causes[0].path else ""
    shifts = sorted(
        diagnosis.symptoms,
        key=lambda s: (s.service != top, s.kind not in ENTRY_KINDS, s.p_value, -s.samples, s.operation, s.measure),
    )
    asked = next((q for s in shifts if (q := question(s, frames, when)) is not None), None)
    if asked is None:
        return diagnosis
    counts = ask(asked)
    apart = set_apart(counts)
    said = tuple(sentence(one, asked) for one in apart)
    first = diagnosis.causes[0]
    first = replace(first, evidence=(*first.evidence[:1], *said, *first.evidence[1:]))
    return replace(diagnosis, causes=(narrowed(first, apart, counts), *diagnosis.causes[1:]))


def narrowed(cause: Cause, apart: Sequence[Apart], counts: pl.DataFrame) -> Cause:
    """The cause with `resource` set to `key=value` where a value that people gave to requests (a tenant, a model) is
    all that is bad about a service of which nothing else is narrower.

    Of the requests that pass through the service, those with the value must be bad LIFT times as often as those
    without: else the value only says who uses the service.
    """
    if cause.kind is not CauseKind.SERVICE or cause.resource:
        return cause
    passing = counts.filter((pl.col("key") == "service") & (pl.col("value") == cause.service))
    for one in apart:
        if one.key.startswith(COMMON) or CONSEQUENCES.search(one.key) or not passing.height:
            continue
        others = float(_others_with(passing, one.against).sum()) - one.others_with
        bad = float(passing["bad"].sum()) - one.bad_with
        with_value = (one.bad_with + 0.5) / (one.bad_with + one.others_with + 1)
        enough = bad + others >= max(MIN_BAD, 0.1 * (one.bad_with + one.others_with))
        if enough and with_value >= LIFT * max(bad + 0.5, 0.5) / (max(bad, 0.0) + max(others, 0.0) + 1):
            return replace(cause, resource=f"{one.key}={one.value}")
    return cause


def sentence(one: Apart, asked: AttributeQuestion) -> Evidence:
    """What sets the requests apart, in words."""
    bad = "slow" if asked.slower_than_ms else "failing"
    name = one.value if one.key == "service" else f"{one.key}={one.value}"
    has = "pass through" if one.key == "service" else "have"
    by = f" ({one.service})" if one.service != asked.service and one.key != "service" else ""
    others = "the others" if one.against == "others" else "all requests before"
    alike = f"; so do those with {', '.join(one.alike)}" if one.alike else ""
    text = (
        f"{one.bad_with} of {one.bad} {bad} requests of {asked.service} {asked.operation} {has} {name}{by}, "
        f"{one.others_with} of {one.others} of {others} ({_probability(one.p_value)}){alike}"
    )
    return Evidence("attribute", text, numbers(one), query(asked, one))


def numbers(one: Apart) -> Numbers:
    counts = ("bad_with", "bad", "others_with", "others")
    return tuple((name, float(getattr(one, name))) for name in counts)


def query(asked: AttributeQuestion, one: Apart | None = None) -> str:
    """The address that counts again."""
    given = [("service", asked.service), ("operation", asked.operation), ("kind", asked.kind)]
    given += [("slower_than_ms", repr(asked.slower_than_ms)), ("requests", str(asked.requests))]
    for name, from_ns, to_ns in (
        ("before", asked.before_from_ns, asked.before_to_ns),
        ("after", asked.after_from_ns, asked.after_to_ns),
    ):
        given.append((name, "/".join(rfc3339(ns).replace(".000Z", "Z") for ns in (from_ns, to_ns))))
    if one is not None:
        given += [("of", one.service), ("key", one.key), ("value", one.value)]
    return f"{API_PREFIX}/attributes?{urlencode(given, safe=':/')}"


def _probability(p: float) -> str:
    return "q < 1e-6" if p < 1e-6 else f"q = {p:.2g}"


def question(shift: Shift, frames: Frames, when: Periods) -> AttributeQuestion | None:
    """What to ask about one symptom; None where no spans show it. Slow is what exceeds the P99 before."""
    failing = shift.measure == "error_ratio"
    if not (failing or shift.measure.startswith("latency_")) or shift.kind == "Metric" or shift.after <= shift.before:
        return None
    rows = frames.windows.lazy().filter(pl.col("service") == shift.service, pl.col("kind") != "Metric")
    if shift.operation:
        rows = rows.filter(pl.col("operation") == shift.operation)
    elif shift.kind in ENTRY_KINDS:
        rows = rows.filter(pl.col("kind") == shift.kind)
    near = _bounded(when, frames.windows)
    marked = rows.with_columns(near.mark()).filter(pl.col("period").is_not_null()).collect()
    busiest = (
        marked.group_by("operation", "kind")
        .agg(pl.col("requests").sum(), pl.col("period").n_unique())
        .filter(pl.col("period") == 2)
        .sort("requests", "operation", "kind", descending=[True, False, False])
    )
    if not busiest.height:
        return None
    operation, kind, requests = busiest.select("operation", "kind", "requests").row(0)
    mine = marked.filter((pl.col("operation") == operation) & (pl.col("kind") == kind) & (pl.col("period") == 0))
    slow_ms = 0.0 if failing else _quantile_ms(mine)
    bounds = near.before_from_ns, near.before_to_ns, near.after_from_ns, near.after_to_ns
    return AttributeQuestion(shift.service, operation, kind, slow_ms, *bounds, int(requests))


def _bounded(when: Periods, windows: pl.DataFrame) -> Periods:
    """The windows next to the onset, fewer where more spans come; the same at every look once they are there."""
    before = windows.filter(
        (pl.col("kind") != "Metric") & pl.col("window_start_ns").is_between(when.before_from_ns, when.before_to_ns - 1)
    )
    count = max(1, (when.before_to_ns - when.before_from_ns) // WINDOW_NS)
    usual = max(float(before["requests"].sum()) / count, 1.0)
    side_ns = min(MAX_SIDE_NS, max(MIN_SIDE_NS, int(MAX_SPANS / usual) * WINDOW_NS))
    return Periods(
        max(when.before_from_ns, when.before_to_ns - side_ns),
        when.before_to_ns,
        when.after_from_ns,
        min(when.after_to_ns, when.after_from_ns + side_ns),
    )


def _quantile_ms(rows: pl.DataFrame) -> float:
    """Upper bound of the bucket that holds the quantile."""
    counts = (
        rows.select("latency_buckets")
        .explode("latency_buckets", empty_as_null=False)
        .unnest("latency_buckets")
        .group_by("bucket")
        .agg(pl.col("count").sum())
        .sort("bucket")
    )
    below = counts["count"].cum_sum().to_numpy()
    at = int(np.searchsorted(below, SLOW * below[-1]))
    return float(2.0 ** ((int(counts["bucket"][at]) + 1) / BUCKETS_PER_OCTAVE))


def set_apart(counts: pl.DataFrame) -> list[Apart]:
    """The values that set the bad requests apart, clearest first, at most MAX_TOLD; from ATTRIBUTE_COUNTS."""
    rows = counts.filter(pl.col("key") != "")
    bad, others, against = _sides(counts)
    return _told(rows, _others_with(rows, against), bad, others, against) if bad >= MIN_BAD and rows.height else []


def counted(counts: pl.DataFrame, service: str, key: str, value: str) -> Numbers:
    """The counts of one value, as `numbers` gives them."""
    bad, others, against = _sides(counts)
    row = counts.filter((pl.col("service") == service) & (pl.col("key") == key) & (pl.col("value") == value))
    with_value = float(row["bad"].sum()), float(_others_with(row, against).sum())
    return ("bad_with", with_value[0]), ("bad", bad), ("others_with", with_value[1]), ("others", others)


def _sides(counts: pl.DataFrame) -> tuple[int, int, Literal["others", "before"]]:
    """How many bad requests there are, and how many to compare them with: the good ones, or all before."""
    totals = counts.filter((pl.col("service") == "") & (pl.col("key") == ""))
    bad, good, bad_before, good_before = (
        int(totals[name].sum()) for name in ("bad", "good", "bad_before", "good_before")
    )
    return (bad, good, "others") if bad < ALL_BAD * (bad + good) else (bad, bad_before + good_before, "before")


def _others_with(rows: pl.DataFrame, against: Literal["others", "before"]) -> Floats:
    found = rows["good"] if against == "others" else rows["bad_before"] + rows["good_before"]
    return found.to_numpy().astype(np.float64)


def _told(
    rows: pl.DataFrame, others_with: Floats, bad: int, others: int, against: Literal["others", "before"]
) -> list[Apart]:
    if others < MIN_BAD:
        return []
    bad_with = rows["bad"].to_numpy().astype(np.float64)
    p = _adjusted(fisher(bad_with, bad, others_with, others))
    lift = _bad_ratio(bad_with, others_with) / np.maximum(_bad_ratio(bad - bad_with, others - others_with), 1e-9)
    clear = (p < FALSE_DISCOVERIES) & (bad_with >= COVER * bad) & (lift >= LIFT) & (others_with <= 0.5 * others)
    chosen = np.flatnonzero(clear)
    keys, services, texts = (rows[name].to_list() for name in ("key", "service", "value"))
    follows = np.array([bool(CONSEQUENCES.search(keys[i])) for i in chosen.tolist()], bool)
    order = np.lexsort((chosen, _plainness(keys, chosen), -(bad_with / bad - others_with / others)[chosen], follows))
    found: list[Apart] = []
    for i in chosen[order].tolist():
        counts = int(bad_with[i]), int(others_with[i])
        twin = next((k for k, a in enumerate(found) if _same((a.bad_with, a.others_with), counts, bad + others)), None)
        if twin is not None:
            one = found[twin]
            name = f"{keys[i]}={texts[i]}"
            if len(one.alike) < 3 and name not in one.alike and name != f"{one.key}={one.value}":
                found[twin] = _with_alike(one, name)
        elif len(found) < MAX_TOLD:
            found.append(Apart(services[i], keys[i], texts[i], counts[0], bad, counts[1], others, float(p[i]), against))
    return found


def _with_alike(one: Apart, name: str) -> Apart:
    return replace(one, alike=(*one.alike, name))


def _same(one: tuple[int, int], other: tuple[int, int], traces: int) -> bool:
    """Whether two values stand on (nearly) the same requests."""
    return abs(one[0] - other[0]) + abs(one[1] - other[1]) <= 0.02 * traces


def _plainness(keys: Sequence[str], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """What people set themselves comes before what instrumentation adds to every span."""
    return np.array([int(keys[i].startswith(COMMON)) for i in chosen.tolist()], np.int64)


def fisher(bad_with: Floats, bad: int, others_with: Floats, others: int) -> Floats:
    """Probability that at least `bad_with` of `bad` traces have a value that `bad_with + others_with` of all have."""
    tail = stats.hypergeom.sf(bad_with - 1, bad + others, bad_with + others_with, bad)
    return np.clip(np.asarray(tail, np.float64), 0.0, 1.0)


def _bad_ratio(bad: Floats, others: Floats) -> Floats:
    return np.asarray((bad + 0.5) / (bad + others + 1.0), np.float64)


def _adjusted(p: Floats) -> Floats:
    """Benjamini and Hochberg's, over all values of the question."""
    return np.asarray(stats.false_discovery_control(p), np.float64)
