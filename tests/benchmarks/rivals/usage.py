"""What a process tree has used, read from /proc: CPU seconds and the high-water mark of its memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    with contextlib.suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def cpu_s(pid: int) -> float:
    """User and system time of the tree, ended children included, in seconds."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(ticks) for ticks in fields[11:15])  # utime, stime, cutime, cstime
    return total / TICKS


def peak_bytes(pid: int) -> int:
    """Sum of the tree's largest resident sizes (VmHWM); pages that two of them share count twice."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


def forget_peak(pid: int) -> None:
    """Starts the high-water mark anew at the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
