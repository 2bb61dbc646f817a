"""What one family of tests found about all series, before false discoveries are controlled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from observe.detect.evidence import Sample
from observe.detect.statistics import Floats, Ints


@dataclass(frozen=True, slots=True)
class Findings:
    """Of the series that have an effect, by their numbers in the grid; all arrays are [finding]. `p` is 1 where
    evidence or persistence is missing."""

    measures: tuple[str, ...]
    unit: str
    series: Ints
    p: Floats
    choice: Ints  # which of `measures`
    before: Floats
    after: Floats
    samples: Floats
    statistics: tuple[Sample, ...]  # what the onset is looked for in


def nothing(measures: tuple[str, ...], unit: str) -> Findings:
    none = np.zeros(0)
    return Findings(measures, unit, none.astype(np.int64), none, none.astype(np.int64), none, none, none, ())
