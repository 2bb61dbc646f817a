"""Days of services in which nothing is wrong: how often detection says otherwise.

Windows are drawn hour by hour and walked the way watching does: folded into the memory, screened, and tested exactly
where the screen lets them through. What varies without a fault: traffic over the day and between windows, latency's
level (own and common to all), hiccups of latency and of errors, tails up to a Pareto's, and releases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from scipy import special, stats

from observe import frames as shapes
from observe.bench.series import START_NS, WINDOW_S
from observe.detect import detect
from observe.detect.memory import Memory
from observe.detect.screen import screen
from observe.frames import BUCKETS_PER_OCTAVE, SERVICE_WINDOWS, Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Json, Shift

LOWEST, HIGHEST = -32, 288  # 0.25 ms … 4.4 min
WIDTH, MIDDLE = 420, 180  # buckets of a service's own table, and which of them is its median
NEVER = 1e-8  # share below which a bucket is empty
LIKELY = 0.02  # expected requests from which on a bucket is drawn by itself
DENSE = 100.0  # expected requests from which on buckets are drawn instead of requests
HOUR = 360  # windows
DAY_S = 86_400.0
KEEP_FIRING = 6  # windows after which an episode is over
PENDING = 1  # windows that a shift must have been seen before, to fire
HICCUP, FAILING, RELEASE = 1, 2, 4
UPSETS = {HICCUP: "slow", FAILING: "failing", RELEASE: "release"}
UPSET_OF = {"error_ratio": {"failing", "release"}, "requests_per_s": set[str]()}  # else slow ones and releases
RECENT = 24  # windows that the longest range looks back
FLEET = 100  # services of the fleet that each is taken to belong to: the more, the stricter a look

NO_MORE = (shapes.empty().selfs, shapes.empty().edges, shapes.empty().gauges)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unrest:
    """What varies with nothing wrong. Ranges are drawn from uniformly, one value a service."""

    requests_per_s: tuple[float, float] = (0.1, 1000.0)  # drawn evenly in its logarithm
    daily: tuple[float, float] = (0.0, 0.8)  # amplitude of traffic's cycle
    traffic_cv: tuple[float, float] = (0.0, 0.3)  # between windows
    sigma: tuple[float, float] = (0.3, 1.0)  # of log latency
    slow_share: tuple[float, float] = (0.0, 0.02)  # second mode, 8 times slower
    pareto_share: tuple[float, float] = (0.0, 0.01)  # requests whose latency has a Pareto tail of index 1.5
    wander: tuple[float, float] = (0.0, 0.05)  # sd of the log level
    memory: tuple[float, float] = (3.0, 60.0)  # windows after which wandering has forgotten
    common: float = 0.3  # part of the wandering that all share
    errors: tuple[float, float] = (0.0, 0.01)
    errors_cv: tuple[float, float] = (0.0, 0.7)  # between windows
    hiccups_per_h: float = 1.0  # windows in which 10 % of the requests are slow
    error_hiccups_per_h: float = 0.1  # windows in which 10 % fail
    releases_per_day: float = 1.0  # a window half slow and a tenth failing; then a level up to 10 % from before


class Fleet:
    """Draws one hour after the other; the same seed draws the same."""

    def __init__(self, services: int, seed: int, unrest: Unrest) -> None:
        self.services, self.unrest = services, unrest
        self._rng = np.random.default_rng(seed)
        u, n = unrest, services
        self._rate = np.exp(self._uniform((np.log(u.requests_per_s[0]), np.log(u.requests_per_s[1]))))
        self._median = self._uniform((np.log(5.0), np.log(500.0)))
        self._phase = self._uniform((0.0, 1.0))
        self._daily, self._cv, self._sigma = map(self._uniform, (u.daily, u.traffic_cv, u.sigma))
        self._slow, self._pareto, self._wander = map(self._uniform, (u.slow_share, u.pareto_share, u.wander))
        self._errors, self._errors_cv = self._uniform(u.errors), self._uniform(u.errors_cv)
        self._keep = np.exp(-1.0 / self._uniform(u.memory))
        self._state = self._rng.normal(size=n)
        self._shared = float(self._rng.normal())
        self._hour = 0
        self._upsets: list[NDArray[np.uint8]] = []
        self._usual, self._late = self._tables()
        self.names = [f"service-{i:05d}" for i in range(n)]

    @property
    def requests_per_s(self) -> Floats:
        return self._rate

    def hour(self) -> pl.DataFrame:
        """The next HOUR windows."""
        u, shape = self.unrest, (HOUR, self.services)
        rng, window = self._rng, self._hour * HOUR + np.arange(HOUR)[:, None]
        day = np.sin(2 * np.pi * (window * WINDOW_S / DAY_S + self._phase))
        rate = self._rate * (1.0 + self._daily * day) * self._gamma(self._cv, shape)
        level = self._median + self._wander * self._wandered()
        share = WINDOW_S / 3600.0
        hiccup = rng.random(shape) < u.hiccups_per_h * share
        failing = rng.random(shape) < u.error_hiccups_per_h * share
        release = rng.random(shape) < u.releases_per_day * WINDOW_S / DAY_S
        self._upsets.append((HICCUP * hiccup + FAILING * failing + RELEASE * release).astype(np.uint8))
        steps = np.cumsum(release * rng.uniform(-0.1, 0.1, shape), axis=0)
        level += steps
        self._median = self._median + steps[-1]
        slow = np.clip(0.1 * hiccup + 0.5 * release, 0.0, 0.9)
        error = np.clip(self._errors * self._gamma(self._errors_cv, shape) + 0.1 * (failing | release), 0.0, 1.0)
        requests, entries = self._histograms(rate * WINDOW_S, level, slow)
        frame = self._frame(requests, rng.binomial(requests, error), entries)
        self._hour += 1
        return frame

    def upsets(self, service: int, before: int, windows: int) -> list[list[str]]:
        """What was put into the last `windows` windows of a service before the one numbered `before`, oldest first."""
        numbers = range(max(0, before - windows), before)
        marks = [int(self._upsets[number // HOUR][number % HOUR, service]) for number in numbers]
        return [[name for bit, name in UPSETS.items() if mark & bit] for mark in marks]

    def _uniform(self, bounds: tuple[float, float]) -> Floats:
        return self._rng.uniform(*bounds, self.services)

    def _gamma(self, cv: Floats, shape: tuple[int, int]) -> Floats:
        alpha = 1.0 / np.maximum(cv, 1e-3) ** 2
        factor: Floats = self._rng.gamma(np.broadcast_to(alpha, shape), 1.0 / alpha)
        return factor

    def _wandered(self) -> Floats:
        """First-order autoregressive noise of variance 1, going on from the hour before; [window, service]."""
        own, common = np.empty((HOUR, self.services)), np.empty(HOUR)
        fresh = np.sqrt(1.0 - self._keep**2) * self._rng.normal(size=own.shape)
        keep = float(np.exp(-1.0 / 12.0))
        for window in range(HOUR):  # a recursion in time, over all services at once
            self._state = self._keep * self._state + fresh[window]
            self._shared = keep * self._shared + np.sqrt(1.0 - keep**2) * float(self._rng.normal())
            own[window], common[window] = self._state, self._shared
        mixed: Floats = np.sqrt(1.0 - self.unrest.common) * own + np.sqrt(self.unrest.common) * common[:, None]
        return mixed

    def _tables(self) -> tuple[Floats, Floats]:
        """Share of each bucket around the median, as usual and of what is slow; [service, bucket]."""
        edges = np.log(2.0) * (np.arange(WIDTH + 1) - MIDDLE) / BUCKETS_PER_OCTAVE

        def shares(below: Floats) -> Floats:
            table = np.maximum(np.diff(below, axis=1), 0.0)
            table[table < NEVER] = 0.0
            normal: Floats = table / table.sum(axis=1, keepdims=True)
            return normal

        sigma, slow, heavy = self._sigma[:, None], self._slow[:, None], self._pareto[:, None]
        body, late = special.ndtr(edges / sigma), special.ndtr((edges - np.log(8.0)) / sigma)
        pareto = np.where(edges > 0, 1.0 - np.exp(-1.5 * np.maximum(edges, 0.0)), 0.0)
        return shares((1.0 - slow - heavy) * body + slow * late + heavy * pareto), shares(late)

    def _histograms(self, expected: Floats, level: Floats, slow: Floats) -> tuple[NDArray[np.int64], _Entries]:
        """Requests [window, service], and the buckets that hold any. Levels are rounded at random to whole buckets."""
        rng = self._rng
        shift = np.floor(level * BUCKETS_PER_OCTAVE / np.log(2.0) + rng.random(level.shape)).astype(np.int64) - MIDDLE
        row, column, count = _drawn(expected * (1.0 - slow), self._usual, rng)
        late = _drawn(np.where(slow > 0, expected * slow, 0.0), self._late, rng)
        row, column = np.concatenate([row, late[0]]), np.concatenate([column, late[1]])
        bucket = np.clip(column + shift.ravel()[row], LOWEST, HIGHEST - 1) - LOWEST
        cells = row * (HIGHEST - LOWEST) + bucket
        order = np.argsort(cells, kind="stable")
        cells, count = cells[order], np.concatenate([count, late[2]])[order]
        starts = np.flatnonzero(np.diff(cells, prepend=-1))
        count = np.add.reduceat(count, starts) if len(starts) else count
        row, bucket = np.divmod(cells[starts], HIGHEST - LOWEST)
        requests = np.bincount(row, weights=count, minlength=expected.size).astype(np.int64).reshape(expected.shape)
        return requests, _Entries(row, bucket + LOWEST, count)

    def _frame(self, requests: NDArray[np.int64], errors: NDArray[np.int64], entries: _Entries) -> pl.DataFrame:
        start = START_NS + (self._hour * HOUR + np.arange(HOUR)) * WINDOW_NS
        filled = np.flatnonzero(requests.ravel())
        first = np.searchsorted(entries.row, np.append(filled, requests.size)).astype(np.int32)
        pairs = pa.StructArray.from_arrays(
            [pa.array(entries.bucket.astype(np.int16)), pa.array(entries.count.astype(np.uint64))], ["bucket", "count"]
        )
        rows = pl.DataFrame({
            "window_start_ns": np.repeat(start, self.services)[filled],
            "requests": requests.ravel()[filled],
            "errors": errors.ravel()[filled],
            "service": pl.Series(self.names)[(filled % self.services).tolist()],
            "latency_buckets": pl.Series(pl.from_arrow(pa.ListArray.from_arrays(pa.array(first), pairs))),
        })  # fmt: skip
        fixed = [pl.lit("GET /").alias("operation"), pl.lit("Server").alias("kind"), pl.lit("1").alias("version"),
                 pl.lit(0.0).alias("duration_sum_ms")]  # fmt: skip
        return rows.with_columns(fixed).select(pl.col(name).cast(dtype) for name, dtype in SERVICE_WINDOWS.items())


@dataclass(frozen=True, slots=True)
class _Entries:
    row: NDArray[np.int64]  # sorted; window × services + service
    bucket: NDArray[np.int64]
    count: NDArray[np.int64]


def _drawn(
    expected: Floats, table: Floats, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, column of the table, and count. Poisson by bucket where many are expected, else request by request."""
    flat, service = expected.ravel(), np.tile(np.arange(expected.shape[1]), expected.shape[0])
    few = flat < DENSE
    n = rng.poisson(np.where(few, flat, 0.0))
    row = np.repeat(np.arange(flat.size), n)
    steps = np.cumsum(table, axis=1)
    steps[:, -1] = 1.0
    ladder = (steps + np.arange(len(table))[:, None]).ravel()
    of = service[row]
    column = np.searchsorted(ladder, of + rng.random(len(row)), side="left") - of * table.shape[1]
    rows, columns, counts = [row], [np.clip(column, 0, table.shape[1] - 1)], [np.ones(len(row), np.int64)]
    for part in np.array_split(np.flatnonzero(~few), max(1, int((~few).sum()) // 5_000)):
        at, where, many = _by_bucket(flat[part], table, service[part], rng)
        rows.append(part[at])
        columns.append(where)
        counts.append(many)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(counts)


def _by_bucket(
    expected: Floats, table: Floats, of: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Poisson counts of the buckets where any are likely; of the others together, each put where chance has it."""
    services, number = np.unique(of, return_inverse=True)
    shares = table[services]
    most = np.zeros(len(services))
    np.maximum.at(most, number, expected)
    likely = shares * most[:, None] >= LIKELY
    cells, filled = np.nonzero(likely)
    size = likely.sum(axis=1)
    first, sizes = np.cumsum(size) - size, size[number]
    row = np.repeat(np.arange(len(of)), sizes)
    at = np.arange(len(row)) + np.repeat(first[number] - (np.cumsum(sizes) - sizes), sizes)
    counts = rng.poisson(expected[row] * shares[cells, filled][at])
    some = np.flatnonzero(counts)
    rest = np.where(likely, 0.0, shares)
    scarce = np.repeat(np.arange(len(of)), rng.poisson(expected * rest.sum(axis=1)[number]))
    steps = np.cumsum(rest, axis=1)[number[scarce]]
    column = np.count_nonzero(steps <= (rng.random(len(scarce)) * steps[:, -1])[:, None], axis=1)
    return (
        np.concatenate([row[some], scarce]),
        np.concatenate([filled[at[some]], np.minimum(column, table.shape[1] - 1)]),
        np.concatenate([counts[some], np.ones(len(scarce), np.int64)]),
    )


@dataclass(slots=True)
class Alarm:
    service: str
    first: Shift
    window: int
    seen: int = 1
    last: int = 0


def quiet_days(
    services: int,
    looks: int,
    seed: int,
    unrest: Unrest | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Json:
    """False alarms of `services` in that many looks, after an hour of history: those seen, and those that fire."""
    fleet, settings = Fleet(services, seed, unrest or Unrest()), DetectSettings()
    memory, first = Memory(settings), START_NS // WINDOW_NS
    hour = fleet.hour()
    memory.fold(hour, first, first + HOUR)
    past = _Past(hour, fleet.names)
    alarms: list[Alarm] = []
    suspects = 0
    for look in range(looks):
        window = first + HOUR + look
        if look % HOUR == 0:
            hour = fleet.hour()
            past.extend(hour, window - HOUR - 10)
            bounds = np.searchsorted(hour["window_start_ns"].to_numpy(), (window + np.arange(HOUR + 1)) * WINDOW_NS)
        fresh = slice(*bounds[look % HOUR : look % HOUR + 2].tolist())
        memory.fold(hour[fresh], window, window + 1)
        memory.last = window + 1
        suspects += _look(memory, past, window, alarms, settings)
        progress((look + 1) / looks)
    days = services * looks * WINDOW_S / DAY_S
    fired = [alarm for alarm in alarms if alarm.seen > PENDING]
    drawn = sum(was_drawn(alarm.first.measure, _upsets(alarm, fleet, first)) for alarm in fired)
    low, high = poisson_interval(len(fired))
    return {
        "services": services,
        "seed": seed,
        "service_days": round(days, 2),
        "looks": looks,
        "tested_exactly_per_look": round(suspects / looks, 2),
        "seen": len(alarms),
        "fired": len(fired),
        "of_them_drawn": drawn,
        "fired_per_1000_service_days": round(1000 * len(fired) / days, 3),
        "interval_95": [round(1000 * low / days, 3), round(1000 * high / days, 3)],
        "which": [_told(alarm, fleet, first) for alarm in alarms],
    }


def was_drawn(measure: str, upsets: list[list[str]]) -> bool:
    """Whether two of three windows in a row had something put into them that moves this measure.

    Upsets fall independently, so now and then two come within 30 s: a tenth of the requests then fails, or is slow, for
    20 s of 30, which is no less than what detection is asked to tell within 30 s.

    >>> was_drawn("error_ratio", [["failing"], [], ["release"]]), was_drawn("error_ratio", [["failing"], ["slow"], []])
    (True, False)
    """
    marked = [bool(UPSET_OF.get(measure, {"slow", "release"}).intersection(names)) for names in upsets]
    return any(sum(marked[at : at + 3]) >= 2 for at in range(len(marked)))


def _upsets(alarm: Alarm, fleet: Fleet, first: int) -> list[list[str]]:
    return fleet.upsets(
        int(alarm.service.rsplit("-", 1)[1]), alarm.last + 1 - first, RECENT + alarm.last - alarm.window
    )


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson count (Garwood 1936, doi:10.1093/biomet/28.3-4.437).

    >>> [round(bound, 2) for bound in poisson_interval(0)]
    [0.0, 3.69]
    """
    tail = (1.0 - level) / 2.0
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2.0 if count else 0.0
    return low, float(stats.chi2.ppf(1.0 - tail, 2 * count + 2)) / 2.0


class _Past:
    """Rows by service, so that those of a few are at hand."""

    def __init__(self, windows: pl.DataFrame, names: list[str]) -> None:
        self._number = {name: number for number, name in enumerate(names)}
        self._rows = windows.clear()
        self.extend(windows, 0)

    def extend(self, windows: pl.DataFrame, since: int) -> None:
        """Rows of windows before `since` are dropped."""
        kept = self._rows.filter(pl.col("window_start_ns") >= since * WINDOW_NS)
        self._rows = pl.concat([kept, windows]).sort("service", maintain_order=True)
        counts = self._rows["service"].rle().struct
        sizes = np.zeros(len(self._number), dtype=np.int64)
        sizes[[self._number[name] for name in counts.field("value")]] = counts.field("len").to_numpy()
        self._ends = np.cumsum(sizes)

    def of(self, names: list[str], since: int, before: int) -> pl.DataFrame:
        """Rows of some services in windows [since, before)."""
        ends = self._ends[[self._number[name] for name in names]].tolist()
        starts = [int(self._ends[self._number[name] - 1]) if self._number[name] else 0 for name in names]
        rows = pl.concat([self._rows[start:end] for start, end in zip(starts, ends, strict=True)])
        return rows.filter(pl.col("window_start_ns").is_between(since * WINDOW_NS, before * WINDOW_NS - 1))


def _look(memory: Memory, kept: _Past, window: int, alarms: list[Alarm], settings: DetectSettings) -> int:
    """One look after `window` has settled; how many services were tested exactly."""
    now_ns = (window + 1) * WINDOW_NS + int(settings.settle_s * 1e9)
    reach = window - memory.length
    past = [alarm for alarm in alarms if alarm.last >= reach]
    screened = screen(memory, settings, {alarm.service for alarm in past})
    names = sorted(screened.services)
    if not names:
        return 0
    rows = kept.of(names, reach - 2, window + 1)
    abnormal = [
        Interval(a.first.onset_ns, now_ns if window - a.last <= KEEP_FIRING else a.last * WINDOW_NS, a.service)
        for a in past
        if a.seen > PENDING or window - a.last <= KEEP_FIRING
    ]
    fleet = screened.fleet.of(3 * FLEET)
    for shift in detect(Frames(rows, *NO_MORE), now_ns, settings, abnormal, fleet):
        _note(alarms, shift, window)
    return len(names)


def _note(alarms: list[Alarm], shift: Shift, window: int) -> None:
    for alarm in reversed(alarms):
        if alarm.service == shift.service and window - alarm.last <= KEEP_FIRING:
            alarm.seen += alarm.last < window
            alarm.last = window
            return
    alarms.append(Alarm(shift.service, shift, window, last=window))


def _told(alarm: Alarm, fleet: Fleet, first: int) -> Json:
    rate = float(fleet.requests_per_s[int(alarm.service.rsplit("-", 1)[1])])
    shift, upsets = alarm.first, _upsets(alarm, fleet, first)
    return {
        "requests_per_s": round(rate, 2),
        "measure": shift.measure,
        "before": round(shift.before, 4),
        "after": round(shift.after, 4),
        "samples": shift.samples,
        "p_value": shift.p_value,
        "looks": alarm.seen,
        "upsets": [[len(upsets) - at, *names] for at, names in enumerate(upsets) if names],
    }
