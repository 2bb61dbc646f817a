"""The question behind a symptom: the level of one series in the windows that were compared, as an address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, urlencode, urlsplit

from observe.errors import BadRecord
from observe.types import WINDOW_NS
from observe.wire import API_PREFIX, from_rfc3339, rfc3339

PATH = f"{API_PREFIX}/levels"
QUANTILES = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
MEASURES = (*QUANTILES, "error_ratio", "requests_per_s")
MAX_RANGES = 40
"""Addresses must stay short enough for every proxy."""

Range = tuple[int, int]
Ranges = tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Noticed:
    """What was compared: ranges are [from, to) of window starts in ns, ascending and apart.

    Traffic before is the lower median over the blocks, as long as `after` and ending with it, that lie in `before`;
    everything else is the level of all windows together.
    """

    measure: str
    service: str
    operation: str
    kind: str
    before: Ranges
    after: Ranges

    @property
    def query(self) -> str:
        """The address that gives the level before and after; "" where it would be too long, or there is no such
        question."""
        if self.measure not in MEASURES or not self.before or not self.after:
            return ""
        if len(self.before) + len(self.after) > MAX_RANGES:
            return ""
        asked = {"measure": self.measure, "service": self.service, "operation": self.operation, "kind": self.kind}
        asked |= {"before": _text(self.before), "after": _text(self.after)}
        return f"{PATH}?{urlencode(asked, safe=':/,')}"

    def blocks(self) -> list[Range]:
        """Those that lie in `before`, oldest first."""
        end, length = self.after[-1][1], self.block_ns
        found: list[Range] = []
        for from_ns, to_ns in self.before:
            newest = -(-(end - to_ns) // length)
            oldest = (end - from_ns) // length
            found += [(end - (k + 1) * length, end - k * length) for k in range(oldest - 1, newest - 1, -1)]
        return found

    @property
    def block_ns(self) -> int:
        return self.after[-1][1] - self.after[0][0]


def asked(address: str) -> Noticed:
    """The inverse of `query`. Raises BadRecord where the address asks for something else."""
    parts = urlsplit(address)
    given = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if parts.path != PATH or given.get("measure") not in MEASURES:
        raise BadRecord(f"{address!r} asks for no level")
    measure, service, operation, kind = (given.get(name, "") for name in ("measure", "service", "operation", "kind"))
    before, after = (ranges(name, given.get(name, "")) for name in ("before", "after"))
    return Noticed(measure, service, operation, kind, before, after)


def unit(measure: str) -> str:
    """UCUM."""
    return {"error_ratio": "1", "requests_per_s": "{request}/s"}.get(measure, "ms")


def ranges(name: str, text: str) -> Ranges:
    """ "from/to,from/to" of RFC 3339 times. Raises BadRecord where they are no ranges, or not ascending."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("/")
        found.append((from_rfc3339(first), from_rfc3339(last)))
    bounds = [at for pair in found for at in pair]
    if sorted(bounds) != bounds or any(a == b for a, b in found) or len(found) > MAX_RANGES:
        raise BadRecord(f"{name}: at most {MAX_RANGES} ranges from/to, ascending, with commas between them are allowed")
    return tuple(found)


def marked_ranges(windows: Sequence[bool], first_ns: int) -> Ranges:
    """The ranges of windows that are marked; the first one starts at `first_ns`.

    >>> marked_ranges([True, True, False, True], 0) == ((0, 2 * WINDOW_NS), (3 * WINDOW_NS, 4 * WINDOW_NS))
    True
    """
    found: list[Range] = []
    for at, marked in enumerate(windows):
        if not marked:
            continue
        start = first_ns + at * WINDOW_NS
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], start + WINDOW_NS)
        else:
            found.append((start, start + WINDOW_NS))
    return tuple(found)


def earlier(query: str, since_ns: int, by_ns: int) -> str:
    """The same question where windows before `since_ns` had been moved to there from `by_ns` earlier."""
    if not query:
        return ""
    given = asked(query)
    moved = tuple((a - by_ns, b - by_ns) if b <= since_ns else (a, b) for a, b in given.before)
    return replace(given, before=moved).query if all(b <= since_ns for _, b in given.before) else ""


def _text(found: Ranges) -> str:
    return ",".join("/".join(rfc3339(at).replace(".000Z", "Z") for at in pair) for pair in found)
