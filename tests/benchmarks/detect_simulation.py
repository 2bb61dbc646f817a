"""Scores detection on simulated series: `python -m tests.benchmarks.detect_simulation [--series N] [--hours H]`.

Prints one JSON object: per fault, size and traffic the share that was found, delays and onset errors; and false alarms
per 1,000 service-days on series in which nothing happens.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from observe.bench.days import quiet_days
from observe.bench.detection import Episode, walk
from observe.bench.series import START_NS, WINDOW_S, Fault, Fleet, Known, draw
from observe.settings import DetectSettings

SETTINGS = DetectSettings()
HISTORY = 363  # windows of a full baseline and current range
AFTER = 24  # windows that a fault is watched for
OTHERS = 5  # series that nothing happens to: where all fall silent, telemetry has ended
CASES: tuple[tuple[Fault, float], ...] = (
    ("scale", 2.0),
    ("scale", 1.4),
    ("tail", 0.05),
    ("errors", 0.05),
    ("errors", 0.2),
    ("surge", 2.5),
    ("drop", 0.2),
    ("silence", 0.0),
)
RATES = (0.1, 0.5, 2.0, 5.0, 20.0, 100.0, 1000.0)


def power(fault: Fault, size: float, rate: float, series: int, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    onset = (HISTORY + rng.random(series)) * WINDOW_S
    shifts = tuple(Known(i, fault, float(onset[i]), size) for i in range(series))
    frames = draw(Fleet(np.full(series + OTHERS, rate), HISTORY + AFTER + 1, shifts=shifts), rng)
    started = time.process_time()
    episodes = walk(frames, range(HISTORY, HISTORY + AFTER + 1), SETTINGS)
    spent = time.process_time() - started
    digits = len(str(series + OTHERS - 1))
    onset_ns = {f"service-{i:0{digits}d}": START_NS + int(at * 1e9) for i, at in enumerate(onset)}
    found: dict[str, Episode] = {}
    for episode in episodes:
        if episode.seen_ns[0] > onset_ns.get(episode.service, np.inf):
            found.setdefault(episode.service, episode)
    delay = np.array([found[s].delay_s(at) if s in found else np.inf for s, at in onset_ns.items()])
    error = np.array([found[s].onset_error_s(at) for s, at in onset_ns.items() if s in found])
    measures = [episode.first.measure for episode in found.values()]
    return {
        "fault": fault,
        "size": size,
        "requests_per_s": rate,
        "series": series,
        "found": round(float(np.isfinite(delay).mean()), 3),
        "found_in_30_s": round(float((delay <= 30).mean()), 3),
        "found_in_40_s": round(float((delay <= 40).mean()), 3),
        "delay_s_median_p90": [_finite(np.quantile(delay, q, method="higher")) for q in (0.5, 0.9)],
        "onset_within_10_s": round(float((np.abs(error) <= 10).mean()), 3) if len(error) else None,
        "measures": {m: measures.count(m) for m in sorted(set(measures))},
        "look_ms": round(1000 * spent / (AFTER + 1), 1),
    }


def false_alarms(series: int, hours: float, seed: int, warm_up_s: float = 0.0) -> dict[str, object]:
    """`seen` counts every episode, `fired` those seen for the 10 s that an incident is pending by default."""
    rng = np.random.default_rng(seed)
    windows = round(hours * 360)
    first = 9 if warm_up_s else HISTORY
    rates = np.exp(rng.uniform(np.log(0.1), np.log(50.0), series))
    frames = draw(Fleet(rates, first + windows, warm_up_s=warm_up_s), rng)
    episodes = walk(frames, range(first, first + windows + 1), SETTINGS)
    fired = [e for e in episodes if np.isfinite(e.delay_s(0, for_s=10.0))]
    days = series * windows * WINDOW_S / 86_400
    return {
        "service_days": round(days, 2),
        "warm_up_s": warm_up_s,
        "seen": len(episodes),
        "fired": len(fired),
        "fired_per_1000_service_days": round(1000 * len(fired) / days, 2),
        "which": [
            [rates[int(e.service[8:])].round(2), e.first.measure, round(e.first.before, 3), round(e.first.after, 3),
             e.first.samples, len(e.seen_ns)] for e in episodes
        ],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return round(float(value), 1) if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=60)
    parser.add_argument("--quiet-series", type=int, default=500)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("power", "false_alarms"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result: dict[str, object] = {}
    if options.only != "false_alarms":
        result["power"] = [
            power(fault, size, rate, options.series, options.seed) for fault, size in CASES for rate in RATES
        ]
    if options.only != "power":
        result["false_alarms"] = [
            quiet_days(options.quiet_series, round(options.hours * 360), options.seed + i)
            for i in range(options.repeats)
        ]
        result["cold_start"] = false_alarms(options.quiet_series, options.hours / 4, options.seed, warm_up_s=45.0)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
