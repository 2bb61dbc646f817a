"""From a suspect to where exactly: the kind of cause, and the resource that carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.diagnose.contrast import MIN_REQUESTS, Contrast, Of, contrast, lazy_rows, sick_hosts
from observe.diagnose.graph import ENTRY_KINDS, Picture
from observe.diagnose.levels import Periods
from observe.diagnose.releases import Release, Train, fresh, releases
from observe.diagnose.resources import Finding, findings
from observe.frames import Frames
from observe.pods import METRICS, of_pod
from observe.types import CauseKind

SILENT = 0.1
"""Part of its requests before below which an instance counts as gone."""


@dataclass(frozen=True, slots=True)
class Gone:
    """An instance that stopped serving while the others went on. Requests per second."""

    name: str
    before: float
    others_before: float
    others_after: float


@dataclass(frozen=True, slots=True)
class Place:
    """What a cause is called, and the numbers behind it."""

    kind: CauseKind
    resource: str = ""
    contrasts: tuple[Contrast, ...] = ()
    released: Release | None = None
    device: Finding | None = None
    gone: Gone | None = None
    train: Train | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What all narrowing of one diagnosis shares: tables are made once, for all services."""

    frames: Frames
    picture: Picture
    rows: Mapping[Of, pl.DataFrame]  # of all services, from `rows_of`
    releases: Mapping[str, Release]  # per service, the bad ones
    arrived: Mapping[str, str]  # service → the version that came with the trouble, bad or not
    hosts: Mapping[str, tuple[int, ...]]  # host → numbers of the services that suffer on it alone

    def rows_of(self, service: str, of: Of) -> pl.DataFrame:
        """Those of one service: few are asked for."""
        return self.rows[of].filter(pl.col("service") == service)


def ground(frames: Frames, picture: Picture) -> Ground:
    """Compares versions and hosts of the whole fleet."""
    when = picture.periods
    wanted: tuple[Of, ...] = ("self", "errors")
    time, errors = pl.collect_all([lazy_rows(frames.selfs, picture.services, when, of) for of in wanted])
    arrived = fresh(time, when.after_from_ns)
    bad = releases(time, "self", arrived) | releases(errors, "errors", arrived)
    hosts = {
        host: numbers
        for host, services in sick_hosts(time, bad).items()
        if len(numbers := tuple(n for s in services if (n := picture.number(s)) is not None)) >= 2
    }
    return Ground(frames, picture, {"self": time, "errors": errors}, bad, arrived, hosts)


def narrow(given: Ground, service: str, errors: bool, lost: bool) -> Place:
    """The narrowest place within `service` that the numbers bear out; the service itself where they do not. `lost`
    tells that calls to it fail without reaching it."""
    when = given.picture.periods
    of: Of = "errors" if errors else "self"
    rows = given.rows_of(service, of)
    if not rows.height:
        return Place(CauseKind.SERVICE)
    by = {d: found for d in ("version", "instance", "host") if (found := contrast(rows, d, of)) is not None}
    said = tuple(by.values())
    if service in given.releases:
        bad = given.releases[service]
        return Place(CauseKind.VERSION, bad.name, said, bad)
    gone = _gone(given.frames.selfs, service, when) if lost else None
    if gone is not None:
        return Place(CauseKind.INSTANCE, gone.name, (), device=_of_gone(given.frames, when, service, gone), gone=gone)
    if (new := _arrived(by.get("version"), when)) is not None:
        return Place(CauseKind.VERSION, new, said)
    devices = _devices(given.frames, given.picture, service, rows, by.get("instance"))
    device = devices[0] if devices else None
    if device is not None and device.hw_id and device.strength >= 0.5:
        return Place(CauseKind.GPU, device.hw_id, said, None, device)
    kind, resource = _named(by)
    if kind is CauseKind.SERVICE and (pod := _the_one_pod(devices)):
        kind, resource = CauseKind.INSTANCE, pod
    return Place(kind, resource, said, None, device)


def _gone(selfs: pl.DataFrame, service: str, when: Periods) -> Gone | None:
    """The one instance that fell silent, where the others serve what they did."""
    sums = (
        selfs.lazy()
        .filter((pl.col("service") == service) & pl.col("kind").is_in(list(ENTRY_KINDS)) & (pl.col("instance") != ""))
        .with_columns(when.mark())
        .group_by("instance")
        .agg(pl.col("requests").filter(pl.col("period") == p).sum().alias(f"n{p}") for p in (0, 1))
        .filter(pl.col("n0") >= MIN_REQUESTS)
        .sort("instance")
        .collect()
    )
    before = sums["n0"].to_numpy() / max(when.before_s, 1.0)
    after = sums["n1"].to_numpy() / max(when.after_s, 1.0)
    silent = np.flatnonzero(after < SILENT * before)
    if len(silent) != 1 or sums.height < 2:
        return None
    at = int(silent[0])
    rest = float(before.sum() - before[at]), float(after.sum() - after[at])
    return Gone(str(sums["instance"][at]), float(before[at]), *rest) if rest[1] >= 0.5 * rest[0] else None


def _arrived(versions: Contrast | None, when: Periods) -> str | None:
    """The one version that is bad while the others are not, if it was hardly there before."""
    if versions is None or len(versions.carriers) != 1:
        return None
    (bad,) = versions.carriers
    before = bad.requests_before / max(when.before_s, 1.0)
    return bad.name if before < 0.2 * bad.requests / max(when.after_s, 1.0) else None


def _named(by: dict[str, Contrast]) -> tuple[CauseKind, str]:
    instances, hosts, versions = by.get("instance"), by.get("host"), by.get("version")
    if instances is not None and len(instances.carriers) == 1:
        return CauseKind.INSTANCE, instances.carriers[0].name
    if versions is not None and len(versions.carriers) == 1:
        return CauseKind.VERSION, versions.carriers[0].name
    if hosts is not None and len(hosts.carriers) == 1:
        return CauseKind.HOST, hosts.carriers[0].name
    return CauseKind.SERVICE, ""


def _the_one_pod(devices: Sequence[Finding]) -> str:
    """The pod or container that alone says that it is in trouble."""
    sick = [d for d in devices if d.strength >= 0.5 and not d.hw_id and any(r.metric in METRICS for r in d.readings)]
    return sick[0].instance if len(sick) == 1 else ""


def _of_gone(frames: Frames, when: Periods, service: str, gone: Gone) -> Finding | None:
    """What is said of an instance that serves nothing any more."""
    found = findings(frames.gauges, when, service, [gone.name], [])
    mine = [f for f in found if f.instance == gone.name or of_pod(f.instance, [gone.name])]
    return mine[0] if mine else None


def _devices(
    frames: Frames, picture: Picture, service: str, rows: pl.DataFrame, instances: Contrast | None
) -> list[Finding]:
    """Devices and containers of the service that report trouble, the worst first; those of the bad instances alone."""
    if not frames.gauges.height:
        return []
    gauges = frames.gauges.filter(
        (pl.col("service") == service) | ~pl.col("service").is_in([s for s in picture.services if s != service])
    )
    after = rows.filter(pl.col("period") == 1)
    if instances is not None:
        bad = [v.name for v in instances.carriers]
        after = after.filter(pl.col("instance").is_in(bad))
        narrowed = set(after["host"].to_list())
        return [
            f
            for f in findings(gauges, picture.periods, service, bad, narrowed)
            if f.instance in bad or f.host in narrowed or of_pod(f.instance, {*bad, *narrowed})
        ]
    return findings(gauges, picture.periods, service, set(after["instance"].to_list()), set(after["host"].to_list()))
