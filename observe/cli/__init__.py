"""The `observe` command. Exit codes: 0 done, 1 the answer is no, 2 bad usage or configuration, 3 a server is away."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

import click

from observe.cli import bench, judging, questions, run
from observe.cli.options import cli
from observe.errors import Damaged, Misconfigured, ObserveError, Unavailable

__all__ = ["bench", "cli", "judging", "main", "questions", "run"]


def main() -> NoReturn:
    """Entry point: errors of ours become one line on stderr and the exit code that the contract names."""
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except Damaged:  # said already; as after kill -9, and under the same process id
        _again()
    except ObserveError as error:
        click.echo(f"observe: {error}", err=True)
        sys.exit(3 if isinstance(error, Unavailable) else 2 if isinstance(error, Misconfigured) else 1)


def _again() -> NoReturn:
    """Starts this command anew, without any file that is open now: a library may hold a lock."""
    for descriptor in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            os.set_inheritable(int(descriptor), int(descriptor) <= 2)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
