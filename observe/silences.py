"""Silences: services about which nobody is told for a while. A short list, in one file, written whole."""

from __future__ import annotations

import fnmatch
import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import orjson

from observe.errors import BadRecord
from observe.types import Json
from observe.wire import from_rfc3339, rfc3339

MAX_SILENCES = 1000


@dataclass(frozen=True, slots=True)
class Silence:
    id: str
    service: str  # shell pattern
    comment: str
    created_ns: int
    ends_ns: int

    def covers(self, service: str, now_ns: int) -> bool:
        """Whether nobody is to be told of `service` at `now_ns`."""
        return self.created_ns <= now_ns < self.ends_ns and fnmatch.fnmatchcase(service, self.service)

    def json(self) -> Json:
        return {
            "id": self.id,
            "service": self.service,
            "comment": self.comment,
            "created_at": rfc3339(self.created_ns),
            "ends_at": rfc3339(self.ends_ns),
        }


class Silences:
    """The list, kept in `path`, or in memory without one. Safe from any thread of one process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = {} if path is None or not path.exists() else _read(path)

    def active(self, now_ns: int) -> list[Silence]:
        """Those that have not ended, the one that ends first at the front."""
        with self._lock:
            return sorted((s for s in self._known.values() if s.ends_ns > now_ns), key=lambda s: (s.ends_ns, s.id))

    def add(self, service: str, comment: str, now_ns: int, ends_ns: int) -> Silence:
        """A new silence; ended ones are forgotten. Raises BadRecord where there are too many."""
        added = Silence(uuid.uuid4().hex[:12], service, comment, now_ns, ends_ns)
        with self._lock:
            kept = {key: s for key, s in self._known.items() if s.ends_ns > now_ns}
            if len(kept) >= MAX_SILENCES:
                raise BadRecord(f"service: there are {MAX_SILENCES} silences already; end some, or use a pattern")
            self._keep(kept | {added.id: added})
        return added

    def remove(self, silence_id: str) -> bool:
        """False where there is none with this id."""
        with self._lock:
            if silence_id not in self._known:
                return False
            self._keep({key: s for key, s in self._known.items() if key != silence_id})
            return True

    def _keep(self, silences: dict[str, Silence]) -> None:
        if self._path is not None:
            written = self._path.with_suffix(".new")
            written.write_bytes(orjson.dumps([s.json() for s in silences.values()], option=orjson.OPT_INDENT_2))
            os.replace(written, self._path)
        self._known = silences


def _read(path: Path) -> dict[str, Silence]:
    return {
        s["id"]: Silence(s["id"], s["service"], s["comment"], from_rfc3339(s["created_at"]), from_rfc3339(s["ends_at"]))
        for s in orjson.loads(path.read_bytes())
    }
