"""AC@1 of the diagnosis over random fleets: `python -m tests.benchmarks.diagnose_fleets --cases 100 --services 20`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from observe.bench.fleets import Case, case, score, summary
from observe.bench.graphs import FAULTS, LARGE, PER_ENTRY

TOGETHER = ("latency", "errors", "database", "instance", "network")
"""Kinds of a second fault."""


def _plain(options: argparse.Namespace, number: int, kind: str) -> Case:
    also = TOGETHER[(number // len(options.kinds)) % len(TOGETHER)] if options.two and kind != "none" else ""
    return case(
        options.seed + number,
        options.services,
        kind,
        rate=options.rate * max(1, options.services // PER_ENTRY if options.services > LARGE else 1),
        also=also,
        hidden=options.hidden,
        skew_s=options.skew_s,
    )


def _mixed(seed: int, kind: str) -> Case:
    """What the confidence is judged on: nobody knows beforehand how good the data are."""
    rng = np.random.default_rng([seed, 7])
    return case(
        seed,
        int(rng.choice([10, 20, 40])),
        kind,
        rate=float(rng.choice([4.0, 10.0, 20.0])),
        also=str(rng.choice(TOGETHER)) if kind != "none" and rng.random() < 0.25 else "",
        hidden=float(rng.choice([0.0, 0.2])),
        skew_s=float(rng.choice([0.0, 2.0])),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second for each entry service")
    parser.add_argument("--look-s", type=float, default=None, help="diagnose this long after the fault")
    parser.add_argument("--kinds", nargs="*", default=list(FAULTS))
    parser.add_argument("--hidden", type=float, default=0.0, help="part of the services without instrumentation")
    parser.add_argument("--skew-s", type=float, default=0.0, help="how far the clocks of hosts are off")
    parser.add_argument("--two", action="store_true", help="two faults at once")
    parser.add_argument("--mixed", action="store_true", help="every case another size, rate, and trouble with the data")
    parser.add_argument("--wrong", action="store_true", help="list the cases whose first cause is wrong, on stderr")
    parser.add_argument(
        "--each", type=Path, default=None, help="append every outcome to this file, a line of JSON each"
    )
    options = parser.parse_args()
    outcomes = []
    for i in range(options.cases):
        kind = options.kinds[i % len(options.kinds)]
        found = score(_mixed(options.seed + i, kind) if options.mixed else _plain(options, i, kind), options.look_s)
        outcomes.append(found)
        if options.each is not None:
            with options.each.open("a") as lines:
                lines.write(json.dumps(asdict(found)) + "\n")
        if options.wrong and found.fault != "none" and not (found.rank == 1 and found.resource_right):
            print(asdict(found), file=sys.stderr)
    print(json.dumps(summary(outcomes), indent=1))


if __name__ == "__main__":
    main()
