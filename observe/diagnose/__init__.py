"""Who explains whom: from shifts to ranked causes with their evidence. No I/O, no clock. See docs/diagnosis.md."""

from __future__ import annotations

from observe.diagnose.diagnosis import diagnose
from observe.diagnose.graph import service_graph

__all__ = ["diagnose", "service_graph"]
