"""Root causes of recorded cases: metrics without traces, spans without kinds or status. Pure; see docs/benchmarks.md.

The live diagnosis works on the store's windows. Here everything is one table of metrics, maybe spans, maybe a graph.
"""

from __future__ import annotations

from observe.diagnose.offline.case import Case
from observe.diagnose.offline.rank import Ranked, rank

__all__ = ["Case", "Ranked", "rank"]
