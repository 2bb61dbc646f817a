"""All that one look was given, as one file: so that a diagnosis can be audited, and made again byte for byte.

The file is a zip of Parquet tables and JSON, which common tools open. The same look gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import orjson
import polars as pl
from pydantic import TypeAdapter

from observe.errors import BadRecord
from observe.frames import Frames, PastQuestion, Question, empty, no_answer
from observe.settings import Settings
from observe.types import WINDOW_NS, Incident, Json, State
from observe.wire import incident_json

FORMAT = 1
DOUBLING_FROM_NS = 60_000_000_000
"""While it fires, an incident is kept again whenever its age has doubled, from this on: later looks know more."""

COMPARED_NS = 130 * WINDOW_NS
"""Twenty minutes before an onset, and what is left out next to it."""

_QUESTIONS = TypeAdapter(tuple[Question, ...])
_PASTS = TypeAdapter(tuple[PastQuestion, ...])
_OF_PAST = ("windows", "gauges", "tokens", "blocks")  # tables that an answer about the past may fill
_INCIDENTS = TypeAdapter(tuple[Incident, ...])
_SECTIONS = {"detect", "slo", "canary", "diagnose", "alert"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


@dataclass(frozen=True, slots=True)
class Look:
    """`known` are the incidents before the look. Of the settings only what detects, diagnoses and decides counts."""

    at_ns: int
    known: tuple[Incident, ...]
    frames: Frames
    settings: Settings
    answers: Mapping[Question, pl.DataFrame] = field(default_factory=dict)
    pasts: Mapping[PastQuestion, Frames] = field(default_factory=dict)

    def answer(self, question: Question) -> pl.DataFrame:
        """What was answered then; no rows for what was not asked."""
        found = self.answers.get(question)
        return no_answer(question) if found is None else found

    def past(self, question: PastQuestion) -> Frames:
        """What was answered then; nothing for what was not asked."""
        return self.pasts.get(question, empty())


def pack(look: Look) -> bytes:
    """The look as a zip file. Receivers of alerts and their secrets stay out of it."""
    head = {
        "format": FORMAT,
        "at_ns": look.at_ns,
        "settings": look.settings.model_dump(mode="json", include=_SECTIONS, exclude={"alert": {"webhooks"}}),
    }
    asked = sorted(look.answers, key=lambda q: _QUESTIONS.dump_json((q,)))
    parts = {"look.json": orjson.dumps(head), "known.json": _INCIDENTS.dump_json(look.known)}
    parts |= {f"{f.name}.parquet": _parquet(getattr(look.frames, f.name)) for f in fields(Frames)}
    parts["questions.json"] = _QUESTIONS.dump_json(tuple(asked))
    parts |= {f"answer{i}.parquet": _parquet(look.answers[q]) for i, q in enumerate(asked)}
    pasts = sorted(look.pasts, key=lambda q: _PASTS.dump_json((q,)))
    parts["pasts.json"] = _PASTS.dump_json(tuple(pasts))
    parts |= {
        f"past{i}.{name}.parquet": _parquet(getattr(look.pasts[q], name))
        for i, q in enumerate(pasts)
        for name in _OF_PAST
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, body in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), body)
    return file.getvalue()


def unpack(data: bytes) -> Look:
    """The inverse of `pack`. Raises BadRecord where the bytes are no such file, or of another format."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        head = orjson.loads(parts["look.json"])
        if head["format"] != FORMAT:
            raise BadRecord(f"inputs of format {head['format']}; this version reads format {FORMAT}")
        frames = Frames(*(_table(parts[f"{f.name}.parquet"]) for f in fields(Frames)))
        known = _INCIDENTS.validate_json(parts["known.json"])
        asked = _QUESTIONS.validate_json(parts["questions.json"])
        answers = {q: _table(parts[f"answer{i}.parquet"]) for i, q in enumerate(asked)}
        # Looks that were kept before there were such questions have none.
        asked_past = _PASTS.validate_json(parts.get("pasts.json", b"[]"))
        pasts = {
            q: replace(empty(), **{name: _table(parts[f"past{i}.{name}.parquet"]) for name in _OF_PAST})
            for i, q in enumerate(asked_past)
        }
        return Look(head["at_ns"], known, frames, Settings.model_validate(head["settings"]), answers, pasts)
    except (zipfile.BadZipFile, KeyError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadRecord(f"not the inputs of a look: {error}") from error


def _table(body: bytes) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(body))


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, compression="zstd", compression_level=3, statistics=False)
    return file.getvalue()


def shortened(look: Look, onset_ns: int) -> Look:
    """The look with self times and edges of the time that a diagnosis of that onset compares, and no older: they are
    the larger half. Baselines for detection stay whole."""
    from_ns = onset_ns - COMPARED_NS
    old = pl.col("window_start_ns") < from_ns
    frames = look.frames
    return replace(look, frames=replace(frames, selfs=frames.selfs.filter(~old), edges=frames.edges.filter(~old)))


def worth_keeping(before: Incident | None, after: Incident) -> bool:
    """Whether the look that made `after` of `before` is kept: when people are told of something new, and now and then
    while it goes on."""
    if after.state is not State.FIRING or after.fired_ns is None:
        return False
    if before is None or before.state is not State.FIRING or before.version != after.version:
        return True
    return _doublings(after.last_seen_ns - after.fired_ns) > _doublings(before.last_seen_ns - after.fired_ns)


def _doublings(age_ns: int) -> int:
    """
    >>> [_doublings(minutes * 60 * 10**9) for minutes in (0, 1, 2, 3, 4, 60)]
    [0, 1, 2, 2, 3, 6]
    """
    return (max(age_ns, 0) // DOUBLING_FROM_NS).bit_length()


def compared(stored: Json, changed: Sequence[Incident]) -> Json:
    """What the recomputed look says beside what was stored of it, and whether both are the same bytes."""
    found = next((incident_json(i) for i in changed if i.id == stored["id"]), None)
    before, after = _canonical({"note": ""} | stored), _canonical(found)  # none had a note at first
    return {
        "incident_id": stored["id"],
        "same": before == after,
        "sha256_stored": hashlib.sha256(before).hexdigest(),
        "sha256_recomputed": hashlib.sha256(after).hexdigest(),
        "stored": stored,
        "recomputed": found,
    }


def _canonical(body: Json | None) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
