"""What a model call should take, given its tokens: a plane through the baseline's cells, bent towards each cell.

A cell is a half octave of input tokens by one of output tokens. Prefill costs by input token and decoding by output
token, so the plane is `a + b·input + c·output`, none of them negative; it also answers for lengths never seen before.
Pure functions on arrays; latencies are log2 of ms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from observe.detect.statistics import Bools, Floats, Ints

TRUST = 20.0
"""A cell with this many requests in the baseline counts as much as the plane does."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Rows of calls: one window of one cell of one series each; all [rows]."""

    series: Ints
    cell: Ints  # numbered over all series
    n: Floats  # requests
    input: Floats  # mean tokens
    output: Floats
    log_ms: Floats  # mean of log2 latency


def expected_log_ms(calls: Calls, baseline: Bools, series: int) -> Floats:
    """log2 of the expected latency of each row, from the `baseline` rows; NaN for series without any; [rows]."""
    n = np.where(baseline, calls.n, 0.0)
    cells = int(calls.cell.max()) + 1 if len(calls.cell) else 0

    def folded(values: Floats) -> Floats:
        sums: Floats = np.bincount(calls.cell, weights=n * values, minlength=cells).astype(np.float64)
        return sums

    count = folded(np.ones(len(n)))
    some = np.maximum(count, 1e-12)
    inputs, outputs, level = folded(calls.input) / some, folded(calls.output) / some, folded(calls.log_ms) / some
    owner = np.zeros(cells, dtype=np.int64)
    owner[calls.cell] = calls.series
    design = np.stack([np.ones(cells), inputs, outputs], axis=1)
    plane = planes(design, np.exp2(level), count, owner, series)
    at_cell = _log2((design * plane[owner]).sum(axis=1))
    bend = np.where(count > 0, (level - at_cell) * count / (count + TRUST), 0.0)
    of_row = np.stack([np.ones(len(n)), calls.input, calls.output], axis=1)
    at_row = _log2((of_row * plane[calls.series]).sum(axis=1))
    known = np.bincount(calls.series, weights=n, minlength=series) > 0
    return np.where(known[calls.series], at_row + bend[calls.cell], np.nan)


def planes(design: Floats, value: Floats, count: Floats, owner: Ints, series: int) -> Floats:
    """Coefficients ≥ 0 of the best plane of each series, [series, 3]: least squares of relative errors.

    Three coefficients allow to try every set of those that are not zero (Lawson and Hanson 1974, ch. 23, need to
    search), so all series are solved at once.
    """
    weight = count / np.maximum(value, 1e-9) ** 2
    scale = _per(owner, weight[:, None] * design, series) / np.maximum(_per(owner, weight[:, None], series), 1e-300)
    scale = np.where(scale > 0, scale, 1.0)
    x = design / scale[owner]
    squares = _per(owner, weight[:, None, None] * x[:, :, None] * x[:, None, :], series)
    products = _per(owner, (weight * value)[:, None] * x, series)
    size = np.maximum(squares[:, 0, 0], 1e-300)
    squares, products = squares / size[:, None, None], products / size[:, None]
    best, least = np.zeros((series, 3)), np.full(series, np.inf)
    for chosen in itertools.product((0.0, 1.0), repeat=3):
        mask = np.array(chosen)
        matrix = squares * mask[:, None] * mask + np.diag(1.0 - mask) + 1e-9 * np.eye(3)
        solved = np.linalg.solve(matrix, (products * mask)[..., None])[..., 0] * mask
        loss = np.einsum("si,sij,sj->s", solved, squares, solved) - 2.0 * (solved * products).sum(axis=1)
        better = (solved >= 0.0).all(axis=1) & (loss < least)
        best, least = np.where(better[:, None], solved, best), np.where(better, loss, least)
    return best / scale


def _per(owner: Ints, values: Floats, series: int) -> Floats:
    total = np.zeros((series, *values.shape[1:]))
    np.add.at(total, owner, values)
    return total


def _log2(value: Floats) -> Floats:
    return np.log2(np.maximum(value, 1e-3))
