"""Switches on the OpenTelemetry instrumentations that are installed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.dependencies import DependencyConflictError

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)

# Without these two, each request makes three spans more, and every one of them says nothing.
ONE_SPAN_A_REQUEST = ["receive", "send"]


def instrument_libraries(environ: Mapping[str, str], excluded_urls: str | None) -> list[str]:
    """Names of the libraries now instrumented; a broken instrumentation is told in the log and left out."""
    # The instrumentations still send the old names of attributes unless they are told not to.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database,gen_ai_latest_experimental")
    unwanted = {name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    done = []
    for entry in sorted(entry_points(group="opentelemetry_instrumentor"), key=lambda e: e.name):
        if entry.name in unwanted or "*" in unwanted:
            continue
        try:
            options = _fastapi_options(excluded_urls) if entry.name == "fastapi" else {}
            entry.load()().instrument(raise_exception_on_conflict=True, **options)
        except (ImportError, DependencyConflictError) as error:
            logger.debug("%s is not instrumented: %s", entry.name, error)
        except Exception:
            logger.warning("the instrumentation of %s does not work here", entry.name, exc_info=True)
        else:
            done.append(entry.name)
    return done


def instrument_app(app: FastAPI, excluded_urls: str | None) -> None:
    """Instruments one application, if nothing has done so before."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        FastAPIInstrumentor.instrument_app(app, **_fastapi_options(excluded_urls))


def _fastapi_options(excluded_urls: str | None) -> dict[str, Any]:
    by_variable = os.environ.get("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS") or os.environ.get("OTEL_PYTHON_EXCLUDED_URLS")
    return {"exclude_spans": ONE_SPAN_A_REQUEST, "excluded_urls": None if by_variable else excluded_urls}
