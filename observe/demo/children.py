"""Child processes that never outlive us."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_S = 12.0


@dataclass(frozen=True, slots=True)
class Child:
    """One running process. Its output goes to `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def last_words(self, lines: int = 15) -> str:
        """The end of its output."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


def spawn(name: str, module: str, *arguments: str, folder: Path, environ: Mapping[str, str] | None = None) -> Child:
    """Starts `python -m module arguments…` in a session of its own: a Ctrl-C on the terminal is for us alone."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "observe.demo.leash", str(os.getpid()), sys.executable, "-m", module, *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=folder,
            env=dict(os.environ if environ is None else environ),
        )
    return Child(name, process, log)


def stop(children: Iterable[Child], timeout_s: float = STOP_S) -> None:
    """Asks all to end, and after `timeout_s` in all makes those end that have not, with their own children."""
    living = [child for child in children if child.alive]
    for child in living:
        child.process.terminate()
    deadline_s = time.monotonic() + timeout_s
    for child in living:
        try:
            child.process.wait(max(deadline_s - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()


def free_ports(count: int) -> Sequence[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
