"""Request trees of a random fleet, simulated span by span with numpy and rolled up into frames.

Each call site of each entry operation is visited once, with arrays over the requests that reach it: the time of a span
is its own work, split around its calls, plus what it waits for; calls that start together overlap. Self time is then
the span's duration minus the union of its children, which here is exactly its own work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.bench.graphs import Bools, Call, Fault, Fleet, Floats, Ints
from observe.frames import BUCKETS_PER_OCTAVE, EDGE_WINDOWS, GAUGE_WINDOWS, SELF_WINDOWS, SERVICE_WINDOWS, Frames
from observe.types import WINDOW_NS

START_NS = 1_700_000_000_000_000_000
WINDOW_MS = WINDOW_NS / 1e6
MAX_DEPTH = 12
TIMEOUT_MS = 4000.0
"""After this a client gives up; the server goes on with its work."""
STORM_RETRIES = 3


@dataclass(frozen=True, slots=True)
class _Spans:
    """Spans of one site. Times are in ms since the start of the case."""

    key: tuple[str, str, str]  # service, operation, kind
    request: Ints
    instance: Ints
    end: Floats
    duration: Floats
    own: Floats
    error: Bools
    origin: Bools


@dataclass(frozen=True, slots=True)
class _Calls:
    key: tuple[str, str, str, str, str]  # caller, caller_operation, callee, callee_operation, connection
    instance: Ints  # of the caller
    end: Floats
    client: Floats
    server: Floats  # nan for virtual nodes
    error: Bools


class Simulation:
    """One case. `frames()` runs it; the same generator state gives the same frames."""

    def __init__(
        self,
        fleet: Fleet,
        faults: Sequence[Fault],
        rng: np.random.Generator,
        *,
        seconds: float = 720.0,
        requests_per_s: float = 20.0,
        skew_s: float = 0.0,
    ) -> None:
        """`skew_s`: how far the clocks of hosts are off, as a standard deviation."""
        self.fleet, self.faults, self.rng = fleet, tuple(faults), rng
        self.seconds, self.requests_per_s = seconds, requests_per_s
        self.windows = int(seconds / 10) + 60
        services = fleet.services
        self._row = {s: i for i, s in enumerate(services)}
        # Load of neighbours, garbage collection and the like: all requests of a window and service share it.
        self._mood = np.exp(rng.normal(0, rng.uniform(0.02, 0.06, (len(services), 1)), (len(services), self.windows)))
        self._busy = rng.uniform(0.1, 0.33, len(services))
        self._first = {s: fleet.instances_of(s)[0] for s in services}
        hosts = sorted({i.host for i in fleet.instances})
        off_ms = dict(zip(hosts, rng.normal(0, skew_s * 1000, len(hosts)), strict=True)) if skew_s else {}
        self._off_ms = np.array([off_ms.get(i.host, 0.0) for i in fleet.instances])
        self._spans: list[_Spans] = []
        self._calls: list[_Calls] = []

    def _of(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.kind in kinds]

    def frames(self) -> Frames:
        for root, start in self._arrivals():
            self._visit(root, start, np.arange(len(start)) + root * 10_000_000, 0)
        spans, calls = self._span_table(), self._call_table()
        return Frames(_service_windows(spans), _self_windows(spans, self.fleet), _edge_windows(calls), self._gauges())

    def _arrivals(self) -> list[tuple[int, Floats]]:
        """Start times per entry operation: Poisson, with a slow wave, and a surge where that is the fault."""
        found = []
        second = np.arange(int(self.seconds))
        for root in self.fleet.roots:
            rate = self.requests_per_s / len(self.fleet.roots) * (1 + 0.15 * np.sin(second / 240 + root))
            for fault in self._of("traffic"):
                rate = rate * np.where(second >= fault.at_s, fault.factor, 1.0)
            count = self.rng.poisson(rate)
            found.append((root, np.sort(np.repeat(second, count) + self.rng.random(int(count.sum()))) * 1000.0))
        return found

    def _visit(self, op: int, start: Floats, request: Ints, depth: int) -> tuple[Floats, Bools]:
        """Ends and failures of one server span per request; records the spans below it first."""
        operation = self.fleet.operations[op]
        instance = self._instance(operation.service, start)
        own = self._own_ms(operation.service, operation.self_ms, operation.sigma, instance, start)
        failed_here = self.rng.random(len(start)) < self._error_ratio(
            operation.service, operation.error_ratio, instance, start
        )
        groups = _groups(operation.calls) if depth < MAX_DEPTH else []
        piece = own / (len(groups) + 1)
        cursor = start + piece
        alive, failed, spent = ~failed_here, failed_here.copy(), piece.copy()
        for group in groups:
            ends = cursor.copy()
            for call in group:
                taken = np.flatnonzero(alive & (self.rng.random(len(start)) < call.probability))
                if not len(taken):
                    continue
                end, bad = self._call(operation.service, call, cursor[taken], request[taken], instance[taken], depth)
                for fault in self._of("repeats"):
                    if fault.service != operation.service:
                        continue
                    hit = np.flatnonzero(self._hit(fault, start[taken]))
                    for _ in range(round(fault.factor) - 1 if len(hit) else 0):
                        more = taken[hit]
                        end[hit], bad[hit] = self._call(
                            operation.service, call, end[hit], request[more], instance[more], depth
                        )
                ends[taken] = np.maximum(ends[taken], end)
                failed[taken] |= bad & (self.rng.random(len(taken)) < 0.95)
            cursor = np.where(alive, ends + piece, cursor)
            spent = np.where(alive, spent + piece, spent)
            alive &= ~failed
        self._spans.append(
            _Spans(
                (operation.service, operation.name, "Server"),
                request,
                instance,
                cursor,
                cursor - start,
                spent,
                failed,
                failed_here,
            )
        )
        return cursor, failed

    def _call(
        self, caller: str, call: Call, start: Floats, request: Ints, instance: Ints, depth: int
    ) -> tuple[Floats, Bools]:
        """One client span per request and what lies behind it."""
        if call.callee < 0:
            duration = self._virtual_ms(caller, call, start)
            end, bad = start + duration, self.rng.random(len(start)) < 0.0002
            name = f"query {call.virtual}"
            self._spans.append(_Spans((caller, name, "Client"), request, instance, end, duration, duration, bad, bad))
            nothing = np.full(len(start), np.nan)
            self._calls.append(
                _Calls((caller, name, call.virtual, "", "database"), instance, end, duration, nothing, bad)
            )
            return end, bad
        if not call.waits:
            self._send(caller, call, start, request, instance, depth)
            return start, np.zeros(len(start), bool)
        end, bad = self._attempt(caller, call, start, request, instance, depth)
        for _ in range(self._retries(call)):
            again = np.flatnonzero(bad)
            if len(again):
                end[again], bad[again] = self._attempt(caller, call, end[again], request[again], instance[again], depth)
        return end, bad

    def _retries(self, call: Call) -> int:
        """In a storm all callers of the failing service ask up to three times again, without a pause."""
        callee = self.fleet.operations[call.callee].service
        return STORM_RETRIES if any(f.service == callee for f in self._of("storm")) else int(call.retries)

    def _attempt(
        self, caller: str, call: Call, start: Floats, request: Ints, instance: Ints, depth: int
    ) -> tuple[Floats, Bools]:
        callee = self.fleet.operations[call.callee]
        end, bad = start.copy(), np.zeros(len(start), bool)
        lost = self._lost(callee.service, start)
        for at, arrives in ((np.flatnonzero(lost), False), (np.flatnonzero(~lost), True)):
            if len(at):
                reach = self._arriving if arrives else self._refused
                end[at], bad[at] = reach(caller, call, start[at], request[at], instance[at], depth)
        return end, bad

    def _arriving(
        self, caller: str, call: Call, start: Floats, request: Ints, instance: Ints, depth: int
    ) -> tuple[Floats, Bools]:
        callee = self.fleet.operations[call.callee]
        way = self._edge_ms(caller, callee.service, call.edge_ms, start)
        done, failed = self._visit(call.callee, start + way / 2, request, depth + 1)
        server = done - start - way / 2
        late = done + way / 2 - start > TIMEOUT_MS
        end = np.where(late, start + TIMEOUT_MS, done + way / 2)
        bad = failed | late
        own = np.where(late, way / 2, way)
        origin = late & ~failed
        self._spans.append(_Spans((caller, "GET", "Client"), request, instance, end, end - start, own, bad, origin))
        key = (caller, "GET", callee.service, callee.name, "direct")
        self._calls.append(_Calls(key, instance, end, end - start, server, bad))
        return end, bad

    def _refused(
        self, caller: str, call: Call, start: Floats, request: Ints, instance: Ints, depth: int
    ) -> tuple[Floats, Bools]:
        """Nobody listens: the caller has a failed span and an address, the callee has nothing."""
        way = self.rng.lognormal(np.log(call.edge_ms), 0.5, len(start))
        bad, nothing = np.ones(len(start), bool), np.full(len(start), np.nan)
        self._spans.append(_Spans((caller, "GET", "Client"), request, instance, start + way, way, way, bad, bad))
        key = (caller, "GET", self.fleet.operations[call.callee].service, "", "external")
        self._calls.append(_Calls(key, instance, start + way, way, nothing, bad))
        return start + way, bad

    def _send(self, caller: str, call: Call, start: Floats, request: Ints, instance: Ints, depth: int) -> None:
        """A message: the consumer works after the producer has gone on."""
        callee = self.fleet.operations[call.callee]
        way = self._edge_ms(caller, callee.service, call.edge_ms, start)
        done, failed = self._visit(call.callee, start + way, request, depth + 1)
        nothing, fine = np.full(len(start), 0.05), np.zeros(len(start), bool)
        key = (caller, "send", "Producer")
        self._spans.append(_Spans(key, request, instance, start + nothing, nothing, nothing, fine, fine))
        edge = (caller, "send", callee.service, callee.name, "messaging")
        self._calls.append(_Calls(edge, instance, done, nothing, done - start - way, failed))

    # ── what the fault does ─────────────────────────────────────────────────────────────────────────────────────────

    def _hit(self, fault: Fault, start: Floats) -> Bools:
        during = start >= fault.at_s * 1000.0
        return np.asarray(during & (self.rng.random(len(start)) < fault.probability))

    def _lost(self, service: str, start: Floats) -> Bools:
        lost = np.zeros(len(start), bool)
        for fault in self._of("crash"):
            if fault.service == service:
                lost |= self._hit(fault, start)
        return lost

    def _instance(self, service: str, start: Floats) -> Ints:
        """The instance that serves each request: any of the service's, a new release taking over from an old one."""
        members = self.fleet.instances_of(service)
        for fault in self._of("release"):
            late = {i for i in members if self.fleet.instances[i].version == fault.resource}
            old, new = ([i for i in members if (i in late) == after] for after in (False, True))
            before = self.rng.choice(old, size=len(start))
            return np.where(start >= fault.at_s * 1000.0, self.rng.choice(new or old, size=len(start)), before)
        for fault in self._of("version"):
            if fault.service != service:
                continue
            (fresh,) = fault.instances
            name = self.fleet.instances[fresh].name
            replaced = next(i for i in members if name == self.fleet.instances[i].name + "-new")
            chosen = self.rng.choice([i for i in members if i != fresh], size=len(start))
            return np.where((chosen == replaced) & (start >= fault.at_s * 1000.0), fresh, chosen)
        return self.rng.choice(members, size=len(start))

    def _own_ms(self, service: str, mean_ms: float, sigma: float, instance: Ints, start: Floats) -> Floats:
        row = self._row[service]
        window = np.minimum((start / WINDOW_MS).astype(np.int64), self.windows - 1)
        own = self.rng.lognormal(np.log(mean_ms) - sigma**2 / 2, sigma, len(start)) * self._mood[row, window]
        for fault in self._of("traffic"):
            busy = self._busy[row] * np.where(start >= fault.at_s * 1000.0, fault.factor, 1.0)
            own = own * (1 - self._busy[row]) / (1 - busy)
        for fault in self._of("host", "release"):
            own = np.where(self._hit(fault, start) & _among(fault, instance), own * fault.factor, own)
        for fault in self._of("latency", "instance", "version", "gpu", "timeout", "storm"):
            if fault.service == service:
                hit = self._hit(fault, start) & (_among(fault, instance) if fault.instances else True)
                own = np.where(hit, own * fault.factor + fault.extra_ms, own)
        return np.asarray(own)

    def _error_ratio(self, service: str, ratio: float, instance: Ints, start: Floats) -> Floats:
        found = np.full(len(start), ratio)
        for fault in self._of("errors", "storm"):
            if fault.service == service:
                found = np.where(start >= fault.at_s * 1000.0, fault.probability, found)
        return found

    def _virtual_ms(self, caller: str, call: Call, start: Floats) -> Floats:
        took = self.rng.lognormal(np.log(call.edge_ms), 0.5, len(start))
        for fault in self._of("network"):
            if fault.service == caller:
                took = np.where(self._hit(fault, start), took + fault.extra_ms, took)
        for fault in self._of("database"):
            if fault.resource == call.virtual:
                took = np.where(self._hit(fault, start), took * fault.factor + fault.extra_ms, took)
        return np.asarray(took)

    def _edge_ms(self, caller: str, callee: str, mean_ms: float, start: Floats) -> Floats:
        took = self.rng.lognormal(np.log(mean_ms), 0.5, len(start))
        for fault in self._of("network"):
            if fault.service in (caller, callee):
                took = np.where(self._hit(fault, start), took + fault.extra_ms, took)
        return np.asarray(took)

    # ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _span_table(self) -> pl.DataFrame:
        keys = sorted({s.key for s in self._spans})
        number = {key: i for i, key in enumerate(keys)}
        columns = {
            "key": np.repeat([number[s.key] for s in self._spans], [len(s.end) for s in self._spans]),
            "request": np.concatenate([s.request for s in self._spans]),
            "instance_no": np.concatenate([s.instance for s in self._spans]),
            "end": np.concatenate([s.end + self._off_ms[s.instance] for s in self._spans]),
            "duration": np.concatenate([s.duration for s in self._spans]),
            "own": np.concatenate([s.own for s in self._spans]),
            "error": np.concatenate([s.error for s in self._spans]),
            "origin": np.concatenate([s.origin for s in self._spans]),
        }
        names = pl.DataFrame(keys, schema=["service", "operation", "kind"], orient="row").with_row_index("key")
        table = pl.DataFrame(columns).filter(pl.col("end").is_between(0.0, self.seconds * 1000.0, closed="left"))
        instances = pl.DataFrame(
            [(i.name, i.version, i.host) for i in self.fleet.instances],
            schema=["instance", "version", "host"],
            orient="row",
        ).with_row_index("instance_no")
        return (
            table.with_columns(_window(), pl.col("key").cast(pl.UInt32), pl.col("instance_no").cast(pl.UInt32))
            .join(names, on="key")
            .join(instances, on="instance_no")
        )

    def _call_table(self) -> pl.DataFrame:
        keys = sorted({c.key for c in self._calls})
        number = {key: i for i, key in enumerate(keys)}
        table = pl.DataFrame(
            {
                "key": np.repeat([number[c.key] for c in self._calls], [len(c.end) for c in self._calls]),
                "end": np.concatenate([c.end + self._off_ms[c.instance] for c in self._calls]),
                "client": np.concatenate([c.client for c in self._calls]),
                "server": np.concatenate([c.server for c in self._calls]),
                "error": np.concatenate([c.error for c in self._calls]),
            }
        ).filter(pl.col("end").is_between(0.0, self.seconds * 1000.0, closed="left"))
        names = pl.DataFrame(
            keys, schema=["caller", "caller_operation", "callee", "callee_operation", "connection"], orient="row"
        ).with_row_index("key")
        return table.with_columns(_window(), pl.col("key").cast(pl.UInt32), pl.col("server").fill_nan(None)).join(
            names, on="key"
        )

    def _gauges(self) -> pl.DataFrame:
        """Clock, throttle reasons, use, temperature and power of every GPU, one sample a window."""
        count = int(self.seconds / 10)
        at = np.arange(count)
        parts = []
        for i, instance in enumerate(self.fleet.instances):
            if not instance.gpu:
                continue
            since = [fault.at_s / 10 for fault in self._of("gpu") if i in fault.instances]
            hot = at >= min(since, default=np.inf)
            series = {
                ("DCGM_FI_DEV_SM_CLOCK", "MHz"): np.where(hot, 900.0, 1980.0) + self.rng.normal(0, 5, count),
                ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "1"): np.where(hot, 64.0, 0.0),
                ("hw.gpu.utilization", "1"): np.where(hot, 0.98, 0.6) + self.rng.normal(0, 0.01, count),
                ("hw.temperature", "Cel"): np.where(hot, 92.0, 64.0) + self.rng.normal(0, 1, count),
                ("hw.power", "W"): np.where(hot, 250.0, 480.0) + self.rng.normal(0, 10, count),
            }
            for (metric, unit), values in series.items():
                parts.append(
                    pl.DataFrame(
                        {
                            "window_start_ns": START_NS + at * WINDOW_NS,
                            "service": "",
                            "instance": "",
                            "host": instance.host,
                            "hw_id": instance.gpu,
                            "metric": metric,
                            "unit": unit,
                            "labels": "",
                            "kind": "gauge",
                            "samples": 1,
                            "value_avg": values,
                            "value_min": values,
                            "value_max": values,
                        }
                    )
                )
        if not parts:
            return pl.DataFrame(schema=GAUGE_WINDOWS)
        return pl.concat(parts).cast(GAUGE_WINDOWS).sort("window_start_ns", "host", "hw_id", "metric")  # type: ignore[arg-type]


def _among(fault: Fault, instance: Ints) -> Bools:
    return np.isin(instance, list(fault.instances))


def _groups(calls: tuple[Call, ...]) -> list[list[Call]]:
    """Calls in the order in which they are made; those of one group start together."""
    groups: list[list[Call]] = []
    for call in calls:
        if call.parallel and groups:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


def _window() -> pl.Expr:
    return (START_NS + (pl.col("end") / WINDOW_MS).floor().cast(pl.Int64) * WINDOW_NS).alias("window_start_ns")


def bucket(value_ms: pl.Expr) -> pl.Expr:
    """Number of the histogram bucket that holds the value."""
    index = (value_ms.clip(lower_bound=1e-6).log(2) * BUCKETS_PER_OCTAVE).ceil() - 1
    return index.cast(pl.Int16).alias("bucket")


def _histograms(table: pl.DataFrame, by: list[str], value: str, name: str) -> pl.DataFrame:
    counts = table.with_columns(bucket(pl.col(value))).group_by(*by, "bucket").agg(count=pl.len().cast(pl.UInt64))
    return counts.sort("bucket").group_by(by).agg(pl.struct("bucket", "count").alias(name))


def _finished(table: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    keys = [name for name, kind in schema.items() if kind == pl.String and not name.endswith("trace_id")]
    return table.select(list(schema)).cast(schema).sort("window_start_ns", *keys)  # type: ignore[arg-type]


def _service_windows(spans: pl.DataFrame) -> pl.DataFrame:
    by = ["window_start_ns", "service", "operation", "kind", "version"]
    sums = spans.group_by(by).agg(
        requests=pl.len(), errors=pl.col("error").sum(), duration_sum_ms=pl.col("duration").sum()
    )
    return _finished(sums.join(_histograms(spans, by, "duration", "latency_buckets"), on=by), SERVICE_WINDOWS)


def _self_windows(spans: pl.DataFrame, fleet: Fleet) -> pl.DataFrame:
    by = ["window_start_ns", "service", "operation", "kind", "version", "instance", "host"]
    sums = spans.group_by(by).agg(
        requests=pl.len(),
        errors=pl.col("error").sum(),
        origin_errors=pl.col("origin").sum(),
        duration_sum_ms=pl.col("duration").sum(),
        self_sum_ms=pl.col("own").sum(),
        slowest_trace_id=pl.col("request").sort_by("own").last().cast(pl.String).str.zfill(32),
        error_trace_id=pl.col("request").filter(pl.col("origin")).max().cast(pl.String).str.zfill(32).fill_null(""),
    )
    return _finished(sums.join(_histograms(spans, by, "own", "self_buckets"), on=by), SELF_WINDOWS)


def _edge_windows(calls: pl.DataFrame) -> pl.DataFrame:
    by = ["window_start_ns", "caller", "caller_operation", "callee", "callee_operation", "connection"]
    some = pl.col("server").is_not_null().any()
    sums = calls.group_by(by).agg(
        calls=pl.len(),
        errors=pl.col("error").sum(),
        client_sum_ms=pl.col("client").sum(),
        server_sum_ms=pl.when(some).then(pl.col("server").sum()),
    )
    return _finished(sums.join(_histograms(calls, by, "client", "latency_buckets"), on=by), EDGE_WINDOWS)
