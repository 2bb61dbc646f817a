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
    lengths: Ints  # newest windows that `after` is of; 0 where `before` is not of the series itself
    statistics: tuple[Sample, ...]  # what the onset is looked for in


def nothing(measures: tuple[str, ...], unit: str) -> Findings:
    none, no = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Findings(measures, unit, no, none, no, none, none, none, no, ())
