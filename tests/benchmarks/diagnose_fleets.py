"""AC@1 of the diagnosis over random fleets: `python -m tests.benchmarks.diagnose_fleets --cases 100 --services 20`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from observe.bench.fleets import case, score, summary
from observe.bench.graphs import FAULTS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--look-s", type=float, default=None, help="diagnose this long after the fault")
    parser.add_argument("--kinds", nargs="*", default=list(FAULTS))
    parser.add_argument("--wrong", action="store_true", help="list the cases whose first cause is wrong, on stderr")
    options = parser.parse_args()
    outcomes = []
    for i in range(options.cases):
        kind = options.kinds[i % len(options.kinds)]
        found = score(case(options.seed + i, options.services, kind, rate=options.rate), options.look_s)
        outcomes.append(found)
        if options.wrong and found.fault != "none" and not (found.rank == 1 and found.resource_right):
            print(asdict(found), file=sys.stderr)
    print(json.dumps(summary(outcomes), indent=1))


if __name__ == "__main__":
    main()
