"""Who is not to be told for a while, as the API offers it. Kept in the store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from observe.errors import BadRecord
from observe.interfaces import Store
from observe.types import Json, Silence
from observe.wire import rfc3339

MAX_SILENCES = 1000


def silence_json(silence: Silence) -> Json:
    return {
        "id": silence.id,
        "service": silence.service,
        "comment": silence.comment,
        "created_at": rfc3339(silence.created_ns),
        "ends_at": rfc3339(silence.ends_ns),
    }


def add(store: Store, service: str, comment: str, now_ns: int, ends_ns: int) -> Silence:
    """A new silence. Raises BadRecord where there are too many."""
    if len(store.silences(now_ns)) >= MAX_SILENCES:
        raise BadRecord(f"service: there are {MAX_SILENCES} silences already; end some, or use a pattern")
    silence = Silence(uuid.uuid4().hex[:12], service, comment, now_ns, ends_ns)
    store.save_silence(silence, now_ns)
    return silence


def end(store: Store, silence_id: str, now_ns: int) -> bool:
    """Ends a silence now; False where none with this id is active."""
    found: Sequence[Silence] = [s for s in store.silences(now_ns) if s.id == silence_id]
    for silence in found:
        store.save_silence(replace(silence, ends_ns=now_ns), now_ns)
    return bool(found)
