"""Statements with their values in place of their parameters, as people can run them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PARAMETER = re.compile(r"\{(\w+):(\w+)\}")


def text(value: str) -> str:
    """
    >>> text("it's")
    "'it\\\\'s'"
    """
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def written_out(statement: str, values: Mapping[str, object]) -> str:
    """The statement with its parameters' values in place of their names."""

    def literal(match: re.Match[str]) -> str:
        value = values[match[1]]
        return text(value) if isinstance(value, str) else str(value)

    return _PARAMETER.sub(literal, statement)
