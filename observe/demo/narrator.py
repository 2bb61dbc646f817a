"""Says on a terminal what happens, one line each, with the seconds since the start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from observe.demo.judge import Result
from observe.explain import symptom
from observe.wire import incident_from_json

Json = dict[str, Any]
MAX_SYMPTOMS = 2
MAX_EVIDENCE = 4


class Narrator:
    """Each version of an incident is told once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._start_s = time.monotonic()
        self._told: dict[str, int] = {}

    def say(self, text: str) -> None:
        self._out.write(f"[{time.monotonic() - self._start_s:4.0f} s] {text}\n")
        self._out.flush()

    def look(self, incidents: Sequence[Json]) -> None:
        """Tells what is new among the incidents."""
        for incident in incidents:
            if self._told.get(incident["id"]) != incident["version"]:
                self._told[incident["id"]] = incident["version"]
                for line in lines(incident):
                    self.say(line)

    def verdict(self, result: Result) -> None:
        delay = f", {result.fault_to_firing_s:.0f} s after the fault" if result.fault_to_firing_s is not None else ""
        self.say(f"{'RIGHT' if result.ok else 'WRONG'}: {result.because}{delay}")


def lines(incident: Json) -> list[str]:
    """What broke, since when, how sure, by which path, and the evidence."""
    told = [f"observe: {incident['state'].upper()} {incident['severity']}: {incident['title']}"]
    told += [f"    broke: {symptom(s)}" for s in incident_from_json(incident).symptoms[:MAX_SYMPTOMS]]
    if incident["causes"]:
        cause = incident["causes"][0]
        named = " ".join(filter(None, (cause["service"], cause["kind"], cause["resource"])))
        told.append(f"    first cause: {named} (score {cause['score']:.2f}, share {cause['share']:.0%})")
        if cause["path"]:
            told.append(f"    path: {' → '.join(cause['path'])}")
        told += [f"    evidence: {e['text']}" for e in cause["evidence"][:MAX_EVIDENCE]]
    return told
