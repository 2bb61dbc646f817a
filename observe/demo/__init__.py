"""A small fleet of real services, faults to put into it, and what observe says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from observe.demo.driver import run_demo as run_demo
    from observe.demo.fleet import Fleet as Fleet

HOMES = {"run_demo": "observe.demo.driver", "Fleet": "observe.demo.fleet"}


def __getattr__(name: str) -> Any:
    """Brought in when asked for: each service of the fleet passes through here, and needs neither."""
    if name in HOMES:
        from importlib import import_module

        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
