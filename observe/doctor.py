"""What is wrong with this installation, and what to do about it. It looks, and changes nothing."""

from __future__ import annotations

import fcntl
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from observe.errors import ObserveError, Unavailable
from observe.interfaces import Store
from observe.settings import Settings
from observe.types import TOPICS, Json

Status = Literal["ok", "warning", "failed", "unreachable"]
TIMEOUT_S = 3.0
LOW_DISK = 5 * 2**30
SKEW_WARNS_S, SKEW_FAILS_S = 2.0, 30.0
QUIET_S = 300.0
MANY_WAITING = 10_000
CATCH_UP = "is the store there, and `observe write` running? If both are, add a writer; it goes on by itself"
MAKE_ROOM = "make room, or shorten retention.*; it goes on by itself"
PUT_ASIDE = """SELECT table, count() AS parts, any(name) AS example FROM system.detached_parts
WHERE database = currentDatabase() AND (startsWith(name, 'broken') OR startsWith(reason, 'broken'))
GROUP BY table ORDER BY table"""
SEE_AUDIT = (
    "`observe audit` says whether rows are missing; then ALTER TABLE … DROP DETACHED PART, or ATTACH from a backup"
)


@dataclass(frozen=True, slots=True)
class Check:
    check: str
    status: Status
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a stream holds: its topics, records that are not stored yet, and why it takes no more ("" where it does)."""

    topics: Sequence[str]
    records: int
    full: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """What only the wiring knows: how to open a store, which migrations this program has, how a stream stands."""

    open_store: Callable[[], Store]
    migrations: Callable[[], list[str]]
    stream: Callable[[], Waiting]
    short_of: Callable[[str], str] = lambda path: ""  # why a chDB folder takes no inserts, for want of room


def examine(settings: Settings, parts: Parts) -> list[Check]:
    """All checks, in the order in which one would repair."""
    running = api_answers(settings)
    checks = [Check("settings", "ok", "read and valid"), *_disk(settings, parts), *_ports(settings, running)]
    checks += _stream(settings, parts)
    checks += _store(settings, parts, running)
    return [*checks, *_gpus(settings), *_targets(settings), *_receivers(settings)]


def exit_code(checks: list[Check]) -> int:
    """0 all well (warnings included), 1 something failed, 3 a server could not be reached."""
    found = {check.status for check in checks}
    return 3 if "unreachable" in found else 1 if "failed" in found else 0


def report(checks: list[Check]) -> Json:
    return {
        "ok": exit_code(checks) == 0,
        "checks": [{"check": c.check, "status": c.status, "found": c.found, "do": c.do} for c in checks],
    }


# ── this machine ────────────────────────────────────────────────────────────────────────────────────────────────────


def api_answers(settings: Settings) -> bool:
    """Whether an API of ours answers at the address of the settings."""
    with suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(f"http://{settings.api.address}/api/v1/health", timeout=TIMEOUT_S, trust_env=False)
        return answer.is_success and answer.json().get("status") == "ok"
    return False


def _disk(settings: Settings, parts: Parts) -> Iterator[Check]:
    folders = {urlsplit(url).path for url in (settings.stream, settings.store) if url.startswith(("local:", "chdb:"))}
    for folder in sorted(folders):
        there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
        free = shutil.disk_usage(there).free
        found = f"{folder}: {free / 2**30:.1f} GiB free"
        why = parts.short_of(str(there)) if settings.store == f"chdb://{folder}" else ""
        if why:
            yield Check("disk", "failed", f"inserts wait, the stream holds what comes: {why}", MAKE_ROOM)
        elif free < LOW_DISK:
            yield Check("disk", "warning", found, "make room, or shorten retention.* and local.retention_bytes")
        else:
            yield Check("disk", "ok", found)


def _ports(settings: Settings, running: bool) -> Iterator[Check]:
    addresses = {
        "collect.otlp.grpc": settings.collect.otlp.grpc,
        "collect.otlp.http": settings.collect.otlp.http,
        "api.address": settings.api.address,
    }
    if settings.dashboard.enabled:
        addresses["dashboard.address"] = settings.dashboard.address
    receiving = running or _takes_otlp(settings.collect.otlp.http)
    for key, address in addresses.items():
        if not _listens(address):
            yield Check(f"port {key}", "ok", f"{address} is free" if not running else f"{address}: nobody listens")
        elif running:
            yield Check(f"port {key}", "ok", f"{address} is served, and observe runs")
        elif receiving and key.startswith("collect.otlp."):
            yield Check(f"port {key}", "ok", f"{address} is served by a receiver")
        else:
            yield Check(
                f"port {key}",
                "failed",
                f"{address} is taken, and not by observe",
                f"stop what listens there, or set {key}",
            )


def _takes_otlp(address: str) -> bool:
    """Whether a receiver of OTLP/HTTP is there, ours as a role of its own, say: it wants a POST."""
    with suppress(httpx.HTTPError, ValueError):
        return httpx.get(f"http://{address}/v1/traces", timeout=TIMEOUT_S, trust_env=False).status_code == 405
    return False


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stream(settings: Settings, parts: Parts) -> Iterator[Check]:
    local = settings.stream.startswith("local:")
    if local and not Path(urlsplit(settings.stream).path).exists():
        yield Check(
            "stream", "warning", f"{settings.stream} is not there yet", "observe migrate creates it, so does up"
        )
        return
    try:
        found = parts.stream()
    except ObserveError as error:
        yield _away("stream", error, "start the broker, or correct `stream` and kafka.client")
        return
    waiting = f"{found.records:,} records wait for the writer"
    if missing := sorted({*TOPICS.values()} - {*found.topics}):
        yield Check("stream", "failed", f"topics missing: {', '.join(missing)}", "observe migrate")
    elif found.full:
        yield Check("stream", "failed", f"{waiting}; senders are told to come again: {found.full}", CATCH_UP)
    elif found.records > MANY_WAITING:
        yield Check("stream", "warning", waiting, CATCH_UP)
    else:
        yield Check("stream", "ok", f"{len(found.topics)} topics, {waiting}")


def _store(settings: Settings, parts: Parts, running: bool) -> Iterator[Check]:
    if settings.store.startswith("chdb:"):
        path = Path(urlsplit(settings.store).path)
        if not path.exists():
            yield Check(
                "store", "warning", f"{settings.store} is not there yet", "observe migrate creates it, so does up"
            )
            return
        if aside := sorted(path.glob("store/*/*/detached/broken*")):
            yield _put_aside(len(aside), aside[0].name)
        if _held(settings.data / "lock"):
            yield (
                Check("store", "ok", "in use by `observe up`, whose API answers")
                if running
                else Check("store", "failed", "in use by a process whose API does not answer", "see its log; stop it")
            )
            return
    try:
        with closing(parts.open_store()) as store:
            yield from _of_store(store, parts.migrations())
            if not settings.store.startswith("chdb:"):
                for row in store.query(PUT_ASIDE).to_dicts():
                    yield _put_aside(row["parts"], f"{row['table']} {row['example']}")
    except ObserveError as error:
        yield _away(
            "store", error, "start ClickHouse, or correct `store` (clickhouse://user:password@host:8123/database)"
        )


def _put_aside(parts: int, example: str) -> Check:
    found = f"{parts} could not be read and were put aside, {example} among them"
    return Check("parts of tables", "failed", found, SEE_AUDIT)


def _held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _of_store(store: Store, migrations: list[str]) -> Iterator[Check]:
    before_ns = time.time_ns()
    head = store.query("SELECT version() AS version, toUnixTimestamp64Nano(now64(9)) AS now_ns").to_dicts()[0]
    now_ns = time.time_ns()
    yield Check("store", "ok", f"ClickHouse {head['version']} answers in {(now_ns - before_ns) / 1e6:.0f} ms")
    tables = set(store.query("SELECT name FROM system.tables WHERE database = currentDatabase()")["name"].to_list())
    done = (
        set(store.query("SELECT Name AS name FROM migrations")["name"].to_list()) if "migrations" in tables else set()
    )
    if missing := [name for name in migrations if name not in done]:
        yield Check("schema", "failed", f"migrations missing: {', '.join(missing)}", "observe migrate")
        return
    if newer := sorted(done - {*migrations}):
        yield Check("schema", "failed", f"made by a newer observe: {', '.join(newer)}", "upgrade this program")
        return
    yield Check("schema", "ok", f"{len(done)} migrations, none missing")
    yield _skew((int(head["now_ns"]) - (before_ns + now_ns) // 2) / 1e9)
    yield from _telemetry(store, now_ns)


def _skew(skew_s: float) -> Check:
    found = f"the store's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this one"
    if abs(skew_s) < SKEW_WARNS_S:
        return Check("clock of the store", "ok", found)
    status: Status = "failed" if abs(skew_s) > SKEW_FAILS_S else "warning"
    return Check("clock of the store", status, found, "run an NTP client on both machines")


def _telemetry(store: Store, now_ns: int) -> Iterator[Check]:
    sql = """SELECT ServiceName AS service, toInt64(max(toUnixTimestamp(Window))) AS newest_s FROM service_windows
             WHERE Window >= toDateTime({from:UInt32}, 'UTC') GROUP BY ServiceName ORDER BY newest_s DESC"""
    rows = store.query(sql, {"from": max(0, now_ns // 10**9 - 86_400)}).to_dicts()
    if not rows:
        yield Check(
            "telemetry", "warning", "no span in the last day", "point OTEL_EXPORTER_OTLP_ENDPOINT at this machine"
        )
        return
    ahead = [row for row in rows if row["newest_s"] * 10**9 > now_ns + int(SKEW_FAILS_S * 1e9)]
    if ahead:
        names = ", ".join(row["service"] for row in ahead[:5])
        yield Check("clocks of senders", "failed", f"ahead of this clock: {names}", "run an NTP client on their hosts")
    age_s = max(0.0, now_ns / 1e9 - rows[0]["newest_s"])
    newest = f"{len(rows)} services in the last day, the newest span {age_s:.0f} s ago"
    if age_s > QUIET_S:
        yield Check("telemetry", "warning", newest, "are the services, the receivers and the writer running?")
    else:
        yield Check("telemetry", "ok", newest)


def _away(what: str, error: ObserveError, do: str) -> Check:
    return Check(what, "unreachable" if isinstance(error, Unavailable) else "failed", str(error), do)


# ── collectors and receivers ────────────────────────────────────────────────────────────────────────────────────────


def _gpus(settings: Settings) -> Iterator[Check]:
    wanted = settings.collect.gpu.enabled
    if wanted is False:
        yield Check("GPUs", "ok", "collect.gpu.enabled is false")
        return
    count, error = _nvml()
    if count:
        yield Check("GPUs", "ok", f"{count} found by the NVIDIA driver")
    elif wanted is True:
        yield Check("GPUs", "failed", f"none: {error}", "install the NVIDIA driver, or set collect.gpu.enabled = false")
    else:
        yield Check("GPUs", "ok", f"none here ({error}); auto leaves them out")
    for url in settings.collect.gpu.dcgm_urls:
        yield _asked("DCGM exporter", url, "collect.gpu.dcgm_urls")


def _nvml() -> tuple[int, str]:
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount()), "the driver knows of no device"
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return 0, str(error)


def _targets(settings: Settings) -> Iterator[Check]:
    for target in settings.collect.inference.targets:
        yield _asked("inference server", target.url, "collect.inference.targets")


def _asked(what: str, url: str, key: str) -> Check:
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, ValueError) as error:
        return Check(what, "unreachable", f"{url}: {error}", f"start it, or correct {key}")
    if not answer.is_success:
        return Check(what, "failed", f"{url}: status {answer.status_code}", f"correct {key}: its metrics page is meant")
    return Check(what, "ok", f"{url} answers")


def _receivers(settings: Settings) -> Iterator[Check]:
    if not settings.alert.webhooks:
        yield Check("receivers", "warning", "no webhook: nobody is told of incidents", "set alert.webhooks")
    for webhook in settings.alert.webhooks:
        parts = urlsplit(webhook.url)
        address = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        if _listens(address):
            yield Check("receiver", "ok", f"{webhook.name or address} takes connections")
        else:
            yield Check("receiver", "unreachable", f"{webhook.name or address}", "start it, or correct alert.webhooks")
