"""Processes die, freeze and starve under load; afterwards every item is looked for.

`python -m tests.faults.siege --kills 50 --seed 1` besieges each deployment in turn and prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from observe.errors import Unavailable
from observe.settings import Settings
from observe.stream import open_stream
from observe.types import SIGNALS, Signal
from tests.faults.attack import attack
from tests.faults.deployments import Deployment
from tests.faults.load import Load, is_wrong, put_garbage

NAMES: dict[Signal, str] = {"spans": "spans", "metrics": "metric_points", "logs": "log_records"}
DEPLOYMENTS = (("kafka", "clickhouse"), ("local", "chdb"), ("kafka", "chdb"), ("local", "clickhouse"))
PATIENCE_S = 400.0
GROUP = "observe-writer"


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard it gets. `freeze_s` is longer than a Kafka session here (a local lease is added); once the store
    stays away for `away_s`."""

    kills: int
    seed: int
    exports_per_s: float = 40.0
    freeze_s: float = 5.0
    full_s: float = 5.0
    away_s: float = 60.0
    pause_s: float = 2.0
    patience_s: float = PATIENCE_S
    disks: bool = True  # small ones, which can be full, where they may be mounted
    faults: tuple[str, ...] = ()  # in this order; else all kinds, by chance


def besiege(folder: Path, stream: str, store: str, plan: Plan, say: Callable[[str], None] = lambda text: None) -> Any:
    """The books after the siege; `problems` is empty where all is well."""
    chance = random.Random(plan.seed)
    deployment = Deployment(folder, stream, store, disks=plan.disks)
    began = time.monotonic()
    try:
        garbage = put_garbage(deployment.broker.bootstrap) if deployment.broker else 0
        load = Load(deployment.senders(), seed=plan.seed, exports_per_s=plan.exports_per_s)
        rest = partial(_compare, deployment, load, plan, say)
        try:
            load.begin()
            happened = attack(deployment, plan, chance, say, rest)
            load.stop(plan.patience_s)
        finally:
            load.abandon()
        say(f"{load.items()} items acknowledged; waiting until they are stored")
        _wait_until_read(deployment, plan.patience_s)
        deployment.check_alive()
        memory = deployment.memory()
        audit = deployment.audit()
        deployment.stop_all()
        held = deployment.stored()
        wrong = _wrong_items(held, load)
        evidence = deployment.evidence(wrong) if any(wrong.values()) else {}
    except AssertionError as error:
        raise AssertionError(f"seed {plan.seed}: {error}\n{deployment.tails()}") from error
    finally:
        deployment.close()
    problems = [*_books(audit, load), *_rows(held, load)]
    if audit["dead_letters"] != garbage:
        problems.append(f"{audit['dead_letters']} dead letters, {garbage} records were no OTLP")
    return {
        "stream": stream, "store": store, "seed": plan.seed, "kills": deployment.kills, "faults": happened,
        "seconds": round(time.monotonic() - began), "acknowledged": {s: len(load.acknowledged[s]) for s in SIGNALS},
        "refused_exports": load.refused, "repeated_exports": load.repeated, "peak_mib": dict(memory),
        "signals": audit["signals"], "repeated": audit["repeated"], "dead_letters": audit["dead_letters"],
        "problems": problems, "evidence": evidence,
    }  # fmt: skip


def _compare(deployment: Deployment, load: Load, plan: Plan, say: Callable[[str], None]) -> None:
    """In the middle of a long siege, where the store can be asked: a run that ends early has said what it had seen."""
    if deployment.server is None:
        return
    load.stop(plan.patience_s)
    _wait_until_read(deployment, plan.patience_s)
    held = deployment.stored()
    problems = _rows(held, load)
    say(
        f"after {deployment.kills} kills: {load.items()} items acknowledged, {load.refused} exports refused,"
        f" {load.repeated} sent again: {'; '.join(problems) or 'all stored once'}"
    )
    assert not problems, (problems, deployment.evidence(_wrong_items(held, load)))
    load.begin()


# ── what is read ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _wait_until_read(deployment: Deployment, patience_s: float) -> None:
    """Until the writers have committed all there is; they may take long, but not stand still for long."""
    before: dict[str, int] = {}
    deadline = time.monotonic() + patience_s
    admin = open_stream(Settings(stream=deployment.stream)).admin()
    try:
        while True:
            behind = {"unknown": 1}
            with contextlib.suppress(Unavailable):
                states = [s for s in admin.partitions(GROUP) if s.topic != "otlp_dead_letters"]
                behind = {f"{s.topic}-{s.partition}": s.end - s.committed for s in states if s.committed < s.end}
            if not behind:
                return
            if behind != before:
                before, deadline = behind, time.monotonic() + patience_s
            assert time.monotonic() < deadline, f"records are never stored: {behind}"
            time.sleep(0.3)
    finally:
        admin.close()


# ── what is left ────────────────────────────────────────────────────────────────────────────────────────────────────


def _books(audit: Any, load: Load) -> list[str]:
    problems = [] if audit["ok"] else [f"the audit is not ok: {[p for p in audit['partitions'] if not p['ok']]}"]
    for signal in SIGNALS:
        said, sent = audit["signals"][NAMES[signal]], load.acknowledged[signal]
        wrong = sum(is_wrong(signal, item) for item in sent)
        expected = {"accepted": len(sent), "stored": len(sent) - wrong, "rejected": wrong, "pending": 0}
        if said != expected:
            problems.append(f"{signal}: the audit says {said}, acknowledged was {expected}")
    unequal = [p for p in audit["partitions"] if p["accepted"] != p["stored"] + p["rejected"]]
    return [*problems, *(f"does not add up: {partition}" for partition in unequal)]


def _wrong_items(held: Any, load: Load) -> dict[Signal, list[int]]:
    """Those that are not there exactly once."""
    wrong: dict[Signal, list[int]] = {}
    for signal in SIGNALS:
        good = {item for item in load.acknowledged[signal] if not is_wrong(signal, item)}
        count = Counter(held["items"][signal])
        wrong[signal] = sorted(item for item in good | set(count) if count[item] != (item in good))
    return wrong


def _rows(held: Any, load: Load) -> list[str]:
    problems = []
    for signal in SIGNALS:
        items = held["items"][signal]
        good = {item for item in load.acknowledged[signal] if not is_wrong(signal, item)}
        found = set(items)
        for what, count in (("lost", len(good - found)), ("doubled", len(items) - len(found)),
                            ("never sent", len(found - good))):  # fmt: skip
            if count:
                problems.append(f"{signal}: {count} {what}, {sorted(good ^ found)[:5]}")
    if held["requests"] != held["spans"] or held["differing_windows"]:
        problems.append(f"service_windows counts {held['requests']} requests, otel_traces holds {held['spans']} spans")
    if held["traces"] != held["looked_up"]:
        problems.append(f"{held['traces']} traces, {held['looked_up']} in the lookup by id")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50, help="kill -9 in all, at least [50]")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", help="one deployment, e.g. kafka+clickhouse")
    parser.add_argument("--exports-per-s", type=float, default=40.0)
    parser.add_argument("--away-s", type=float, default=60.0, help="how long the store stays away once [60]")
    parser.add_argument("--no-disks", action="store_true", help="mount no small disks to fill")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of all processes")
    options = parser.parse_args(arguments)
    chosen = [pair for pair in DEPLOYMENTS if options.only in (None, "+".join(pair))]
    results = []
    for n, (stream, store) in enumerate(chosen):
        plan = Plan(-(-options.kills // len(chosen)), options.seed + n, options.exports_per_s, away_s=options.away_s,
                    disks=not options.no_disks)  # fmt: skip
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                results.append(besiege(Path(folder), stream, store, plan, _tell(f"{stream}+{store}")))
            finally:
                _keep(Path(folder), options.keep)
    whole = {"seed": options.seed, "kills": sum(result["kills"] for result in results), "deployments": results}
    whole["ok"] = not any(result["problems"] for result in results)
    sys.stdout.write(json.dumps(whole, indent=2, default=str) + "\n")
    return 0 if whole["ok"] else 1


def _keep(folder: Path, to: Path | None) -> None:
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        for log in folder.rglob("*.log"):
            if "data" not in log.relative_to(folder).parts:  # where a broker calls its records logs
                shutil.copy(log, to)


def _tell(who: str) -> Callable[[str], None]:
    return lambda text: print(f"{time.strftime('%H:%M:%S')} {who}: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
