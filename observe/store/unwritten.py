"""Tokens of inserts that died between the note of their token and their rows.

ClickHouse notes an insert's deduplication token in a table's log, and then renames the part with its rows into place.
A process that is killed in between leaves the token alone; the insert that is made again is taken for done, and its
rows are missing for good. Parts come one after the other, so only a log's last line can be such a token.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

TAIL_BYTES = 4096
_NOTED = re.compile(rb"\n?1\t([^\t\n]+)\t[^\t\n]+\n\Z")  # 1 adds a token, 2 takes one away
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
        forgotten = (_forget_last(logs) for logs in sorted(folder.glob("store/*/*/deduplication_logs")))
        return [part for part in forgotten if part]


def _forget_last(logs: Path) -> str:
    """The part whose token was taken out of a table's log, or ""."""
    filled = [log for log in logs.iterdir() if log.stat().st_size]
    if not filled:
        return ""
    log = max(filled, key=lambda log: int(re.sub(r"\D", "", log.stem) or 0))
    size = log.stat().st_size
    with log.open("rb") as lines:
        lines.seek(max(0, size - TAIL_BYTES))
        found = _NOTED.search(lines.read())
    if found is None or _is_there(logs.parent, part := found[1].decode()):
        return ""
    os.truncate(log, size - len(found[0].lstrip(b"\n")))
    return part


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
