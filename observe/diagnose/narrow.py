"""From a suspect to where exactly: the kind of cause, and the resource that carries it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from observe.diagnose.contrast import Contrast, Of, Value, contrast, release, rows_of
from observe.diagnose.graph import Picture
from observe.diagnose.levels import Periods
from observe.diagnose.resources import Finding, findings
from observe.frames import Frames
from observe.types import CauseKind


@dataclass(frozen=True, slots=True)
class Place:
    """What a cause is called, and the numbers behind it."""

    kind: CauseKind
    resource: str = ""
    contrasts: tuple[Contrast, ...] = ()
    released: Value | None = None
    device: Finding | None = None


def narrow(frames: Frames, picture: Picture, service: str, errors: bool) -> Place:
    """The narrowest place within `service` that the numbers bear out; the service itself where they do not."""
    when = picture.periods
    of: Of = "errors" if errors else "self"
    rows = rows_of(frames.selfs, [service], when, of)
    by = {d: found for d in ("version", "instance", "host") if (found := contrast(rows, d, of)) is not None}
    said = tuple(by.values())
    fresh = release(rows, when.after_from_ns) or _arrived(by.get("version"), when)
    if fresh is not None:
        return Place(CauseKind.VERSION, fresh.name, said, fresh)
    device = _device(frames, picture, service, rows, by.get("instance"))
    if device is not None and device.hw_id and device.strength >= 0.5:
        return Place(CauseKind.GPU, device.hw_id, said, None, device)
    kind, resource = _named(by)
    return Place(kind, resource, said, None, device)


def _arrived(versions: Contrast | None, when: Periods) -> Value | None:
    """The one version that is bad while the others are not, if it was hardly there before."""
    if versions is None or len(versions.carriers) != 1:
        return None
    (bad,) = versions.carriers
    before = bad.requests_before / max(when.before_s, 1.0)
    return bad if before < 0.2 * bad.requests / max(when.after_s, 1.0) else None


def _named(by: dict[str, Contrast]) -> tuple[CauseKind, str]:
    instances, hosts, versions = by.get("instance"), by.get("host"), by.get("version")
    if instances is not None and len(instances.carriers) == 1:
        return CauseKind.INSTANCE, instances.carriers[0].name
    if versions is not None and len(versions.carriers) == 1:
        return CauseKind.VERSION, versions.carriers[0].name
    if hosts is not None and len(hosts.carriers) == 1:
        return CauseKind.HOST, hosts.carriers[0].name
    return CauseKind.SERVICE, ""


def _device(
    frames: Frames, picture: Picture, service: str, rows: pl.DataFrame, instances: Contrast | None
) -> Finding | None:
    """The device of the service that reports the worst trouble, those of the bad instances first."""
    if not frames.gauges.height:
        return None
    gauges = frames.gauges.filter(
        (pl.col("service") == service) | ~pl.col("service").is_in([s for s in picture.services if s != service])
    )
    after = rows.filter(pl.col("period") == 1)
    if instances is not None:
        bad = [v.name for v in instances.carriers]
        after = after.filter(pl.col("instance").is_in(bad))
        narrowed = set(after["host"].to_list())
        found = [
            f
            for f in findings(gauges, picture.periods, service, bad, narrowed)
            if f.instance in bad or f.host in narrowed
        ]
    else:
        found = findings(
            gauges, picture.periods, service, set(after["instance"].to_list()), set(after["host"].to_list())
        )
    return found[0] if found else None
