"""Series whose past holds something that happened once: little for a screen to compare them with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from observe.detect.statistics import Bools, chernoff

RATIO, SHARE, LEAST_REQUESTS, LOG_P = 2.0, 0.015, 60.0, -6.0
CALM = 0.6  # part of the stretches
"""A stretch is worse than the others where the share of its slow or failing requests is more than twice the median and
this, and chance does not make it so from the pooled share of the calmest stretches."""

Smalls = NDArray[np.float32]


def uneven(requests: Smalls, bad: Smalls) -> tuple[Bools, Smalls]:
    """Whether what is bad is many times as frequent in one stretch as in most, [series], and its share in the calmest
    stretches where that is so, [statistic, series].

    Of `requests` [stretch, series], and of them `bad` ones [statistic, stretch, series].

    The exact tests may take such a stretch out of the baseline (`observe.detect.cleaning`), and see more than a screen
    would by a reference that it is part of.
    """
    found, calm = np.zeros(requests.shape[1], dtype=bool), np.zeros((len(bad), requests.shape[1]), np.float32)
    if not len(requests):
        return found, calm
    told = requests >= LEAST_REQUESTS
    shares = np.where(told, bad / np.maximum(requests, 1.0), 0.0)
    middle = np.sort(shares, axis=1)[:, (len(requests) - 1) // 2]
    at = np.flatnonzero((shares.max(axis=1) > RATIO * middle + SHARE).any(axis=0))
    calm[:, at] = _calm(bad[:, :, at], requests[:, at])
    unlikely = chernoff(bad[:, :, at], calm[:, None, at] * requests[:, at]) <= LOG_P
    found[at] = (unlikely & told[:, at]).any(axis=(0, 1))
    return found, calm


def _calm(bad: Smalls, requests: Smalls) -> Smalls:
    """Share of what is bad in the CALM part of the stretches that has the lowest, as if there had been one more;
    [statistic, series]."""
    order = np.argsort(bad / np.maximum(requests, 1.0), axis=1)[:, : max(1, round(CALM * len(requests)))]
    few = np.take_along_axis(bad, order, axis=1).sum(axis=1)
    calm: Smalls = (few + 1.0) / (np.take_along_axis(requests[None], order, axis=1).sum(axis=1) + 1.0)
    return calm
