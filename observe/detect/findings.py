"""What one family of tests found about all series, before false discoveries are controlled."""

from __future__ import annotations

from dataclasses import dataclass

from observe.detect.evidence import Sample
from observe.detect.statistics import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Findings:
    """All arrays are [series]. `p` is 1 where effect or persistence is missing."""

    measures: tuple[str, ...]
    unit: str
    tested: Bools
    p: Floats
    choice: Ints  # which of `measures`
    before: Floats
    after: Floats
    samples: Floats
    statistics: tuple[Sample, ...]  # what the onset is looked for in
