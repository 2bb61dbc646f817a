"""Commands that run something: everything at once, one role, the demo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from observe.cli.options import as_json, cli, configured, print_json, ready, settings_of
from observe.settings import Settings
from observe.types import Json

FAULTS = ("gpu-throttle", "slow-database", "bad-release", "errors", "bad-instance", "none")


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

    return app.up(settings, ready=ready("up"))


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

    return app.collect(kind, settings, ready=ready(f"collect {kind}"))


def _role(name: str, about: str) -> None:
    @cli.command(name, help=about)
    @configured
    def command(**given: Any) -> int:
        settings = settings_of(given)
        from observe import app

        run: Callable[..., int] = getattr(app, name)
        return run(settings, ready=ready(name))


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
        print_json({"done": done})
    else:
        click.echo("\n".join(done) or "nothing to do")
    return 0


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
