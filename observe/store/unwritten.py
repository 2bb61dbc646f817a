"""Tokens of inserts whose rows are not there.

ClickHouse notes an insert's deduplication token in a table's log, and then renames the part with its rows into place.
A process that is killed in between leaves the token alone; the insert that is made again is taken for done, and its
rows are missing for good. The same comes of a part that was cut off by a full disk, and that ClickHouse put aside when
it started. What is looked at is the end of each log: only batches that are not committed yet come again.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

TAIL_BYTES = 4096
BROKEN = "store/*/*/detached/broken-on-start_*"
_ADDED, _TAKEN = b"1", b"2"
_PART = re.compile(r"([^_]+)_(\d+)_(\d+)_\d+(?:_\d+)?")


def forget(folder: Path) -> list[str]:
    """Takes the tokens of parts that are not there out of a chDB folder whose owner died; names the parts."""
    try:
        status = (folder / "status").open("rb")
    except FileNotFoundError:  # its owner took leave in order
        return []
    with status:
        try:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its owner lives
            return []
        return forget_all(folder)


def forget_all(folder: Path) -> list[str]:
    """The same where nobody has the folder open, however it was left."""
    return [part for logs in sorted(folder.glob("store/*/*/deduplication_logs")) for part in _forget(logs)]


def put_aside(folder: Path) -> set[Path]:
    """The parts that ClickHouse could not read when it started."""
    return set(folder.glob(BROKEN))


def _forget(logs: Path) -> list[str]:
    """The parts whose tokens were taken out of a table's log."""
    filled = [log for log in logs.iterdir() if log.stat().st_size]
    if not filled:
        return []
    log = max(filled, key=lambda log: int(re.sub(r"\D", "", log.stem) or 0))
    noted = _noted(log)
    gone = {token: part for token, part in noted.items() if not _is_there(logs.parent, part.decode())}
    if gone:
        with log.open("ab") as lines:
            lines.write(b"".join(b"\t".join((_TAKEN, part, token)) + b"\n" for token, part in gone.items()))
    return sorted(part.decode() for part in gone.values())


def _noted(log: Path) -> dict[bytes, bytes]:
    """The tokens at the end of a log, each with its part."""
    with log.open("rb") as lines:
        lines.seek(-min(log.stat().st_size, TAIL_BYTES), os.SEEK_END)
        whole = lines.read().split(b"\n")[1 if lines.tell() > TAIL_BYTES else 0 : -1]
    noted: dict[bytes, bytes] = {}
    for what, part, token in (fields for line in whole if len(fields := line.split(b"\t")) == 3):
        if what == _ADDED:
            noted[token] = part
        elif what == _TAKEN:
            noted.pop(token, None)
    return noted


def _is_there(table: Path, part: str) -> bool:
    """Whether the rows of a part are in the table, in it or in one that it was merged into."""
    wanted = _PART.fullmatch(part)
    if wanted is None:
        return True  # a name of a kind that is not known here: nothing is concluded from it
    present = (found for entry in table.iterdir() if (found := _PART.fullmatch(entry.name)))
    return any(
        found[1] == wanted[1] and int(found[2]) <= int(wanted[2]) and int(wanted[3]) <= int(found[3])
        for found in present
    )
