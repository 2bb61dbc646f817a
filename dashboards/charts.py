"""Charts over time: one UTC axis for all of them, units in the titles. JSON in, Altair out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboards.words import GREY, ORANGE, SERVICE_COLOURS, SKY, VERMILLION
from observe.types import Json

Range = tuple[str, str]
"""First and last moment of the axis, RFC 3339."""

Chart = alt.LayerChart | alt.FacetChart

QUANTILES = {"latency_p50_ms": "P50", "latency_p95_ms": "P95", "latency_p99_ms": "P99"}
_QUANTILE_COLOURS = {"P50": SKY, "P95": ORANGE, "P99": VERMILLION}
HEIGHT = 320
"""Of the whole chart in pixels: legend and axis included, as Streamlit fits it."""


def latency(windows: Sequence[Json], span: Range, *, onset: str | None = None) -> Chart:
    """P50, P95 and P99 over time."""
    rows = [
        {"at": w["at"], "quantile": name, "value": w[column]} for w in windows for column, name in QUANTILES.items()
    ]
    colour = alt.Color(
        "quantile:N",
        title=None,
        scale=alt.Scale(domain=list(_QUANTILE_COLOURS), range=list(_QUANTILE_COLOURS.values())),
        legend=alt.Legend(orient="top"),
    )
    return _over_time(rows, span, "latency (ms)", colour, onset, format=",.4~r")


def single(windows: Sequence[Json], column: str, title: str, span: Range, **how: Any) -> Chart:
    """One column of the windows over time."""
    rows = [{"at": w["at"], "value": w[column]} for w in windows]
    return _over_time(rows, span, title, alt.value(how.pop("colour", SKY)), **how)


def lines(series: Mapping[str, Sequence[Json]], title: str, span: Range, **how: Any) -> Chart:
    """Several series over time, told apart by name."""
    rows = [{"at": p["at"], "series": name, "value": p["value"]} for name, points in series.items() for p in points]
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=list(series), range=list(SERVICE_COLOURS)),
        legend=alt.Legend(orient="top", labelLimit=400),
    )
    return _over_time(rows, span, title, colour, **how)


def inline(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as they are, without a data frame in between."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]


def _over_time(
    rows: list[dict[str, Any]],
    span: Range,
    title: str,
    colour: Any,
    onset: str | None = None,
    format: str = ",.3~r",
    zero: bool = True,
) -> Chart:
    time = alt.X(
        "at:T",
        title="time (UTC)",
        scale=alt.Scale(type="utc", domain=list(span)),
        axis=alt.Axis(format="%H:%M:%S", labelOverlap=True, tickCount=8, grid=False),
    )
    value = alt.Y("value:Q", title=title, scale=alt.Scale(zero=zero), axis=alt.Axis(format=format, tickCount=5))
    names = [key for key in ("quantile", "series") if rows and key in rows[0]]
    tooltip = [
        alt.Tooltip("at:T", title="time (UTC)", format="%H:%M:%S", timeUnit="utcyearmonthdatehoursminutesseconds"),
        *(alt.Tooltip(f"{name}:N") for name in names),
        alt.Tooltip("value:Q", title=title, format=format),
    ]
    # Points too, so that a value between two gaps is seen.
    line = (
        alt.Chart(inline(rows))
        .mark_line(interpolate="linear", strokeWidth=2, point=alt.OverlayMarkDef(size=14))
        .encode(x=time, y=value, color=colour, tooltip=tooltip)
    )
    layers = [line] if onset is None else [*_onset(onset, time), line]
    return alt.layer(*layers).properties(height=HEIGHT)


def _onset(at: str, time: alt.X) -> list[alt.Chart]:
    """A dashed line with its name: where the new level began."""
    base = alt.Chart(inline([{"at": at, "text": "onset"}])).encode(x=time)
    rule = base.mark_rule(strokeDash=[5, 4], strokeWidth=2, color=GREY)
    text = base.mark_text(align="left", dx=5, dy=6, baseline="top", color=GREY, fontSize=12)
    return [rule, text.encode(y=alt.value(0), text="text:N")]
