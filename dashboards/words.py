"""Numbers, times and names as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from observe.types import Json
from observe.words import MOST_SURE, place

# Okabe & Ito, "Color Universal Design", 2008: told apart with every common colour vision, on light and dark ground.
BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE, GREY = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#8A8F98",
)
SERVICE_COLOURS = (SKY, ORANGE, GREEN, PURPLE, BLUE, VERMILLION, GREY)
HEALTH_COLOURS = {"ok": GREEN, "degraded": ORANGE, "cause": VERMILLION, "unknown": GREY}
SEVERITY_BADGES = {"critical": "red", "warning": "orange", "info": "blue"}
STATE_ICONS = {"firing": ":material/local_fire_department:", "pending": ":material/hourglass_top:"}


def amount(value: float | None, unit: str) -> str:
    """A value with its unit (UCUM).

    >>> [amount(0.0213, "1"), amount(1840.0, "ms"), amount(12.3456, "{request}/s"), amount(None, "ms")]
    ['2.13 %', '1.84 s', '12.3 request/s', '–']
    """
    if value is None:
        return "–"
    if unit == "1":
        return f"{value * 100:.3g} %"
    if unit == "ms":
        return milliseconds(value)
    return f"{_plain(value)} {unit.replace('{', '').replace('}', '')}".rstrip()


def milliseconds(value: float | None) -> str:
    """A duration.

    >>> [milliseconds(v) for v in (0.213, 84.12, 1234.5, 75_000.0, None)]
    ['0.213 ms', '84.1 ms', '1.23 s', '1.25 min', '–']
    """
    if value is None:
        return "–"
    for limit, factor, unit in ((1e3, 1.0, "ms"), (60e3, 1e3, "s"), (float("inf"), 60e3, "min")):
        if abs(value) < limit:
            return f"{_plain(value / factor)} {unit}"
    raise AssertionError("unreachable: the last limit is infinite")


def ratio(value: float | None) -> str:
    return amount(value, "1")


def rate(value: float | None) -> str:
    return "–" if value is None else f"{_plain(value)} /s"


def size(value: float | None) -> str:
    """Bytes in GiB, as GPUs are sold by."""
    return "–" if value is None else f"{value / 2**30:.1f} GiB"


def moment(text: str | None) -> str:
    """An RFC 3339 time, to the second.

    >>> moment("2026-01-31T03:00:05.123Z")
    '2026-01-31 03:00:05 UTC'
    """
    return "–" if not text else text[:19].replace("T", " ") + " UTC"


def ago(text: str, now_ns: int) -> str:
    """How long ago a time was.

    >>> ago("1970-01-01T00:00:10Z", 100 * 10**9), ago("1970-01-01T00:00:00Z", 3 * 3600 * 10**9)
    ('90 s', '3 h')
    """
    seconds = max(0, now_ns // 10**9 - nanoseconds(text) // 10**9)
    for limit, factor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // factor} {unit}"
    return f"{seconds // 86_400} d"


def nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time, to the millisecond."""
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1_000_000


def utc(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)


def where(cause: Json) -> str:
    """What a cause names: the service, and the narrower thing in it."""
    if cause["kind"] == "unknown":
        return "unknown"
    return place(cause["kind"], cause["service"], cause["resource"], cause.get("services", ()), between=" · ")


def sure(cause: Json) -> str:
    """How sure a cause is; nothing that was measured is certain, so 99 % is the most that is said.

    >>> sure({"score": 0.914}), sure({"score": 0.9999})
    ('91%', '99%')
    """
    return f"{min(cause['score'], MOST_SURE):.0%}"


def safe(text: str) -> str:
    """Text from telemetry for st.markdown: nothing in it is markup, a colour directive or a formula.

    >>> print(safe("**a** [b](c) $x$ :red[d]"))
    \\*\\*a\\*\\* \\[b\\](c) \\$x\\$ \\:red\\[d\\]
    """
    return "".join("\\" + sign if sign in "\\`*_[]<>$#:|~" else sign for sign in " ".join(text.split()))


def _plain(value: float) -> str:
    """Three significant digits, without an exponent.

    >>> [_plain(v) for v in (0.0, 0.01234, 12.345, 12345.6)]
    ['0', '0.0123', '12.3', '12,346']
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"
