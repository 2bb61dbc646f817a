"""The event loop of the demo's processes, made cheap: nine of them share a small machine with what they test."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """asyncio.run, on uvloop where there is one."""
    if importlib.util.find_spec("sniffio") is None:
        # httpcore looks for it several times a request, and each search goes through the whole path.
        sys.modules["sniffio"] = None  # type: ignore[assignment]
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
