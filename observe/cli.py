"""The `observe` command. Exit codes: 0 done, 1 the answer is no, 2 bad usage or configuration, 3 a server is away."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import orjson

from observe import __version__
from observe.errors import BadRecord, Misconfigured, ObserveError, Unavailable
from observe.settings import Settings, load
from observe.types import Json

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_API = "http://127.0.0.1:8080"
FAULTS = ("gpu-throttle", "slow-database", "bad-release", "errors", "bad-instance", "none")


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
    except ObserveError as error:
        click.echo(f"observe: {error}", err=True)
        sys.exit(3 if isinstance(error, Unavailable) else 2 if isinstance(error, Misconfigured) else 1)


# ── options that many commands share ────────────────────────────────────────────────────────────────────────────────


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


def _print(body: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def _ready(what: str) -> Callable[[], None]:
    return lambda: click.echo(f"observe {what} is ready; stop it with Ctrl-C or SIGTERM", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="observe")
def cli() -> None:
    """Observability and anomaly detection for AI services: OpenTelemetry in, root causes out."""


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@cli.command()
@configured
@click.option("--otlp-grpc", help="address of OTLP/gRPC [127.0.0.1:4317]")
@click.option("--otlp-http", help="address of OTLP/HTTP [127.0.0.1:4318]")
@click.option("--api", help="address of the API [127.0.0.1:8080]")
@click.option("--dashboard", help="address of the dashboard [127.0.0.1:8501]")
@click.option("--no-dashboard", is_flag=True, help="without the pages")
@click.option("--webhook", "webhooks", multiple=True, help="an Alertmanager-shaped receiver; may be repeated")
def up(
    otlp_grpc: str | None,
    otlp_http: str | None,
    api: str | None,
    dashboard: str | None,
    no_dashboard: bool,
    webhooks: tuple[str, ...],
    **given: Any,
) -> int:
    """Everything on this machine: receivers, stream, store, watcher, API, dashboard."""
    options: Json = {
        "collect.otlp.grpc": otlp_grpc,
        "collect.otlp.http": otlp_http,
        "api.address": api,
        "dashboard.address": dashboard,
        "dashboard.enabled": False if no_dashboard else None,
    }
    settings = settings_of(given, **options)
    if webhooks:
        named = [w.model_dump() for w in settings.alert.webhooks] + [{"url": url} for url in webhooks]
        settings = Settings.model_validate(
            settings.model_dump() | {"alert": settings.alert.model_dump() | {"webhooks": named}}
        )
    if settings.dashboard.enabled:
        settings = _dashboard_asks_our_api(settings)
    from observe import app

    return app.up(settings, ready=_ready("up"))


def _dashboard_asks_our_api(settings: Settings) -> Settings:
    page = settings.dashboard.model_dump() | {"api_url": f"http://{settings.api.address}"}
    alert = settings.alert.model_dump()
    if "external_url" not in settings.alert.model_fields_set:
        alert["external_url"] = f"http://{settings.dashboard.address}"
    return Settings.model_validate(settings.model_dump() | {"dashboard": page, "alert": alert})


@cli.command()
@click.argument("kind", type=click.Choice(["otlp", "gpu", "inference", "host"]))
@configured
def collect(kind: str, **given: Any) -> int:
    """A production role: puts telemetry of one kind on the stream."""
    settings = settings_of(given)
    from observe import app

    return app.collect(kind, settings, ready=_ready(f"collect {kind}"))


def _role(name: str, about: str) -> None:
    @cli.command(name, help=about)
    @configured
    def command(**given: Any) -> int:
        settings = settings_of(given)
        from observe import app

        run: Callable[..., int] = getattr(app, name)
        return run(settings, ready=_ready(name))


_role("write", "A production role: moves the stream into the store; several may run.")
_role("watch", "A production role: detects, diagnoses, and tells the receivers; one runs.")
_role("api", "A production role: answers questions over HTTP.")
_role("dashboard", "A production role: the pages.")


@cli.command()
@configured
@as_json
def migrate(as_json: bool, **given: Any) -> int:
    """Creates the topics and tables that are missing."""
    settings = settings_of(given)
    from observe import app

    done = app.migrate(settings)
    if as_json:
        _print({"done": done})
    else:
        click.echo("\n".join(done) or "nothing to do")
    return 0


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _reads_store_itself(settings: Settings, given_store: str | None) -> bool:
    return given_store is not None and settings.store.startswith("clickhouse")


@cli.command()
@configured
@api_option
@click.option("--from", "from_", required=True, metavar="T", help="RFC 3339 or Unix seconds")
@click.option("--to", required=True, metavar="T", help="RFC 3339 or Unix seconds")
@as_json
def replay(api: str, from_: str, to: str, as_json: bool, **given: Any) -> int:
    """Runs the watcher's code over stored windows; tells nobody and writes nothing."""
    store_option = given["store"]
    settings = settings_of(given)
    from_ns, to_ns = _time(from_, "--from"), _time(to, "--to")
    if to_ns <= from_ns:
        raise click.UsageError("--to must be later than --from")
    if _reads_store_itself(settings, store_option):
        from observe import app

        with app.opened_store(settings) as store:
            body = app.replay_of(store, from_ns, to_ns, settings, _progress())
    else:
        body = _client(api).replay(from_ns, to_ns)
    if as_json:
        _print(body)
    else:
        click.echo("\n\n".join(map(_text, body["incidents"])) or "no incident")
    return 0


@cli.command()
@api_option
@click.option("--state", type=click.Choice(["pending", "firing", "resolved"]))
@as_json
def incidents(api: str, state: str | None, as_json: bool) -> int:
    """What is wrong, and what was."""
    found = _client(api).incidents(state=state)
    if as_json:
        _print({"incidents": found})
    for incident in [] if as_json else found:
        click.echo(f"{incident['id']}  {incident['state']:8}  {incident['severity']:8}  {incident['title']}")
    if not found and not as_json:
        click.echo("no incidents", err=True)
    return 0


@cli.command()
@api_option
@click.argument("incident_id", metavar="ID")
@click.option("--format", "format_", type=click.Choice(["markdown", "html", "json"]), default="markdown")
@click.option("--json", "as_json", is_flag=True, help="the same as --format json")
def explain(api: str, incident_id: str, format_: str, as_json: bool) -> int:
    """One incident: what broke, since when, how sure, who suffers, and the evidence."""
    body = _client(api).incident(incident_id)
    if as_json or format_ == "json":
        _print(body)
    else:
        click.echo(_text(body, format_))
    return 0


@cli.command(name="audit")
@configured
@api_option
@as_json
def audit_command(api: str, as_json: bool, **given: Any) -> int:
    """Accounts for every span, point and log record: accepted = stored + rejected + pending."""
    store_option = given["store"]
    settings = settings_of(given)
    if _reads_store_itself(settings, store_option):
        from observe import app

        body = app.audit_of(settings)
    else:
        body = _client(api).audit()
    if as_json:
        _print(body)
    else:
        click.echo(f"{'':14}{'accepted':>12}{'stored':>12}{'rejected':>12}{'pending':>12}")
        for name, n in body["signals"].items():
            click.echo(f"{name:14}{n['accepted']:12}{n['stored']:12}{n['rejected']:12}{n['pending']:12}")
        click.echo(f"dead letters: {body['dead_letters']}")
    return 0 if body["ok"] else 1


# ── demo ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@cli.command()
@click.option("--fault", type=click.Choice(FAULTS), default="gpu-throttle", show_default=True)
@click.option("--headless", is_flag=True, help="ends by itself: 0 only if the first cause is the injected one")
@click.option("--json", "as_json", is_flag=True, help="the result as one JSON object on stdout")
@click.option("--stream", help="kafka://broker:9092 instead of the local stream")
@click.option("--store", help="clickhouse://user:pw@host:8123/db instead of chDB")
def demo(fault: str, headless: bool, as_json: bool, stream: str | None, store: str | None) -> int:
    """A fleet of real services on this machine, a fault in one of them, and what observe says of it."""
    from observe.demo import run_demo

    return run_demo(fault, headless=headless, json_output=as_json, stream_url=stream, store_url=store)


# ── benchmarks ──────────────────────────────────────────────────────────────────────────────────────────────────────


@cli.group()
def bench() -> None:
    """Measures speed and quality; prints machine-readable results."""


@bench.command(name="ingest")
@click.option("--spans", type=click.IntRange(1), default=2_000_000, show_default=True)
@click.option("--stream", help="kafka://broker:9092 instead of the local stream")
@click.option("--store", help="clickhouse://user:pw@host:8123/db instead of chDB")
@click.option("--server", "servers", multiple=True, metavar="NAME=PID", help="a server whose work is counted too")
@as_json
def bench_ingest(spans: int, stream: str | None, store: str | None, servers: tuple[str, ...], as_json: bool) -> int:
    """OTLP bytes in to rows readable, end to end, load generator included."""
    from observe.bench.ingest import ingest

    pids = {}
    for server in servers:
        name, _, pid = server.partition("=")
        if not pid.isdigit():
            raise click.UsageError(f"--server {server}: NAME=PID is needed")
        pids[name] = int(pid)
    result = ingest(spans, stream=stream, store=store, servers=pids)
    if as_json:
        _print(result)
    else:
        click.echo("\n".join(f"{key:28}{value}" for key, value in result.items()))
    return 0


@bench.command(name="diagnose")
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@as_json
def bench_diagnose(data: Path, as_json: bool) -> int:
    """Root causes of the labelled cases in a folder: ranked services, and how often they are right."""
    from observe.bench import diagnose

    result = diagnose.diagnose(data, progress=_count("cases"))
    if as_json:
        _print(result)
    else:
        click.echo(diagnose.text(result))
    return 0


@bench.command(name="detect")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option("--series", "sizes", type=click.IntRange(1), multiple=True, help="how many, without --data; repeatable")
@as_json
def bench_detect(data: Path | None, sizes: tuple[int, ...], as_json: bool) -> int:
    """With --data the labelled gauges in a folder: when each was told of, and NAB's score. Without it the seconds and
    memory of one look by number of series."""
    from observe.bench import detect, ticks

    if data is not None and sizes:
        raise click.UsageError("--series goes without --data")
    if data is not None:
        result = detect.detect_data(data, progress=_count("cases"))
    else:
        result = ticks.ticks(sorted(sizes) or ticks.SIZES, progress=_count("series"))
    if as_json:
        _print(result)
    else:
        click.echo(detect.text(result))
    return 0


# ── help for the above ──────────────────────────────────────────────────────────────────────────────────────────────


def _client(url: str) -> Any:
    from observe.client import Client

    return Client(url)


def _text(incident: Json, format_: str = "markdown") -> str:
    from observe import explain as render
    from observe.wire import incident_from_json

    body = incident_from_json(incident)
    return render.html(body) if format_ == "html" else render.markdown(body)


def _time(text: str, option: str) -> int:
    from observe.wire import from_rfc3339

    try:
        return from_rfc3339(text)
    except BadRecord as error:
        raise click.UsageError(f"{option}: {error}") from error


def _count(what: str) -> Callable[[int], None]:
    """A running number on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done: None
    return lambda done: click.echo(f"\r{done} {what} ", err=True, nl=False)


def _progress() -> Callable[[float], None]:
    """A line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda share: None

    def show(share: float) -> None:
        click.echo(f"\r{share:4.0%}" + ("\n" if share >= 1 else ""), err=True, nl=False)

    return show
