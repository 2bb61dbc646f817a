"""The time that a page looks at: a range, or a moment, chosen by the reader or by the link."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import streamlit as st

from dashboards.words import nanoseconds, utc

SECOND_NS = 10**9
PRESETS = {"15 min": 900, "1 h": 3600, "6 h": 6 * 3600, "24 h": 24 * 3600}
CUSTOM = "from … to"


class Span(NamedTuple):
    from_ns: int
    to_ns: int
    live: bool = False

    def until(self) -> int | None:
        """The end to ask for: of a live range as far as data has settled, which the API knows."""
        return None if self.live else self.to_ns

    def axis(self) -> tuple[str, str]:
        """For charts: first and last moment in RFC 3339."""
        return utc(self.from_ns).isoformat(), utc(self.to_ns).isoformat()


def pick(default: str = "1 h") -> Span:
    """A range: one of the presets up to now, or two times in UTC (also from `?from=&to=`)."""
    given = st.query_params.get("from"), st.query_params.get("to")
    options = [*PRESETS, CUSTOM]
    chosen = st.segmented_control(
        "Time range", options, default=CUSTOM if all(given) else default, required=True, key="range"
    )
    now_ns = time.time_ns()
    if chosen != CUSTOM:
        return Span(now_ns - PRESETS[str(chosen)] * SECOND_NS, now_ns, live=True)
    left, right = st.columns(2)
    begin = utc(nanoseconds(given[0])) if given[0] else utc(now_ns - 3600 * SECOND_NS)
    end = utc(nanoseconds(given[1])) if given[1] else utc(now_ns)
    with left:
        first = _moment("From (UTC)", begin, "from_time")
    with right:
        last = _moment("To (UTC)", end, "to_time")
    if first >= last:
        st.info("The range is empty: choose a beginning before its end.")
        st.stop()
    return Span(_ns(first), _ns(last))


def pick_moment(label: str) -> int | None:
    """A moment in UTC (also from `?at=`), or None for now."""
    given = st.query_params.get("at")
    now = st.toggle("Now", value=given is None, key="at_now")
    if now:
        return None
    begin = utc(nanoseconds(given)) if given else datetime.now(UTC)
    return _ns(_moment(label, begin, "at_time"))


def _moment(label: str, value: datetime, key: str) -> datetime:
    chosen = st.datetime_input(
        label, value.replace(tzinfo=None, microsecond=0), key=key, step=timedelta(minutes=1), format="YYYY-MM-DD"
    )
    return chosen.replace(tzinfo=UTC)  # the field shows UTC


def _ns(moment: datetime) -> int:
    return round(moment.timestamp()) * SECOND_NS
