"""Frames and the time in, shifts out: which series have moved, by how much, how surely and since when."""

from observe.detect.gauges import gauge_shifts
from observe.detect.shifts import detect

__all__ = ["detect", "gauge_shifts"]
