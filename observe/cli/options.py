"""What the commands share: options, settings, answers on the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from observe import __version__
from observe.errors import BadRecord
from observe.settings import Settings, load
from observe.types import Json

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_API = "http://127.0.0.1:8080"


def configured(command: F) -> F:
    """Adds the options that choose settings; the command gets them as `settings`."""
    for option in reversed(
        (
            click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="a settings file"),
            click.option("--data", help="folder of the one-machine default"),
            click.option("--stream", help="local:///path | kafka://broker:9092"),
            click.option("--store", help="chdb:///path | clickhouse://user:pw@host:8123/db"),
            click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="any setting: detect.settle_s=5"),
            click.option("--log-format", type=click.Choice(["text", "json"]), help="logs go to stderr"),
            click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"])),
        )
    ):
        command = option(command)
    return command


as_json = click.option("--json", "as_json", is_flag=True, help="machine-readable")
api_option = click.option("--api", "api", default=DEFAULT_API, show_default=True, help="the API to ask")


def settings_of(given: Json, **options: Any) -> Settings:
    """Pops the shared options from `given`; the settings they and `options` (dotted keys) lead to."""
    config = given.pop("config")
    if config is None and Path("observe.toml").is_file():
        config = Path("observe.toml")
    chosen = {key: given.pop(key) for key in ("data", "stream", "store")}
    chosen |= {"log.format": given.pop("log_format"), "log.level": given.pop("log_level")}
    for assignment in given.pop("sets"):
        key, equals, value = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set {assignment}: KEY=VALUE is needed")
        chosen[key] = value
    settings = load(config, options=chosen | options)
    _log_to_stderr(settings)
    return settings


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def _log_to_stderr(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines() if settings.log.format == "json" else text)
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for told_by_us in ("urllib3.connectionpool", "clickhouse_connect"):
        logging.getLogger(told_by_us).setLevel(logging.ERROR)


def print_json(body: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def ready(what: str) -> Callable[[], None]:
    return lambda: click.echo(f"observe {what} is ready; stop it with Ctrl-C or SIGTERM", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="observe")
def cli() -> None:
    """Observability and anomaly detection for AI services: OpenTelemetry in, root causes out."""


def reads_store_itself(settings: Settings, given_store: str | None) -> bool:
    return given_store is not None and settings.store.startswith("clickhouse")


def client(url: str) -> Any:
    from observe.client import Client

    return Client(url)


def text_of(incident: Json, format_: str = "markdown", base: str = "") -> str:
    from observe import explain as render
    from observe.wire import from_rfc3339, incident_from_json

    body, looked_at = incident_from_json(incident), incident.get("looked_at")
    looked_ns = None if looked_at is None else from_rfc3339(looked_at)
    if format_ == "text":
        return render.text(body, looked_ns, base)
    form = {"html": render.html, "markdown": render.markdown}[format_]
    return form(body, looked_ns, base, render.statements(incident))


def time_of(text: str, option: str) -> int:
    from observe.wire import from_rfc3339

    try:
        return from_rfc3339(text)
    except BadRecord as error:
        raise click.UsageError(f"{option}: {error}") from error


def count(what: str) -> Callable[[int], None]:
    """A running number on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done: None
    return lambda done: click.echo(f"\r{done} {what} ", err=True, nl=False)


def progress() -> Callable[[float], None]:
    """A line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda share: None

    def show(share: float) -> None:
        click.echo(f"\r{share:4.0%}" + ("\n" if share >= 1 else ""), err=True, nl=False)

    return show
