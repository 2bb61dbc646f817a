"""What one contender did, in numbers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Result:
    """CPU in seconds, memory and disk in bytes. The server's work includes its merges."""

    name: str
    what: str
    spans: int
    rows: int = 0
    distinct: int = 0
    seconds: float = 0.0
    startup_cpu_s: float = 0.0
    pipeline_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    pipeline_peak: int = 0
    server_peak: int = 0
    parts: int = 0
    merged_rows: int = 0
    bytes_by_table: dict[str, int] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """Everything; after kills, which leave no process to measure, rows alone."""
        rows = {
            "name": self.name,
            "what": self.what,
            "spans": self.spans,
            "lost": self.spans - self.distinct,
            "doubled": self.rows - self.distinct,
        }
        return rows | self._cost() if self.seconds else rows

    def _cost(self) -> dict[str, Any]:
        million = max(self.rows, 1) / 1e6
        disk = sum(self.bytes_by_table.values())
        return {
            "seconds": round(self.seconds, 1),
            "spans_per_s": round(self.rows / self.seconds),
            "cpu_s_per_million": {
                "pipeline": round(self.pipeline_cpu_s / million, 2),
                "server": round(self.server_cpu_s / million, 2),
                "together": round((self.pipeline_cpu_s + self.server_cpu_s) / million, 2),
            },
            "startup_cpu_s": round(self.startup_cpu_s, 2),
            "peak_mib": {"pipeline": round(self.pipeline_peak / 2**20), "server": round(self.server_peak / 2**20)},
            "parts": self.parts,
            "merges_of_a_row": round(self.merged_rows / max(self.rows, 1), 2),
            "bytes_per_span": {
                "otel_traces": round(self.bytes_by_table.get("otel_traces", 0) / max(self.rows, 1), 1),
                "all_tables": round(disk / max(self.rows, 1), 1),
            },
        }


def median(results: list[Result]) -> Result:
    """The result of the run with the middle sum of CPU seconds."""
    middle = statistics.median_low([r.pipeline_cpu_s + r.server_cpu_s for r in results])
    return next(r for r in results if r.pipeline_cpu_s + r.server_cpu_s == middle)
