"""Commands that ask the API, or a ClickHouse server directly, and print the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from observe.cli.options import (
    api_option,
    as_json,
    cli,
    client,
    configured,
    print_json,
    progress,
    reads_store_itself,
    settings_of,
    text_of,
    time_of,
)
from observe.types import Json


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
    from_ns, to_ns = time_of(from_, "--from"), time_of(to, "--to")
    if to_ns <= from_ns:
        raise click.UsageError("--to must be later than --from")
    if reads_store_itself(settings, store_option):
        from observe import app

        with app.opened_store(settings) as store:
            body = app.replay_of(store, from_ns, to_ns, settings, progress())
    else:
        body = client(api).replay(from_ns, to_ns)
    if as_json:
        print_json(body)
    else:
        click.echo("\n\n".join(map(text_of, body["incidents"])) or "no incident")
    return 0


@cli.command()
@api_option
@click.option("--state", type=click.Choice(["pending", "firing", "resolved"]))
@as_json
def incidents(api: str, state: str | None, as_json: bool) -> int:
    """What is wrong, and what was."""
    found = client(api).incidents(state=state)
    if as_json:
        print_json({"incidents": found})
    for incident in [] if as_json else found:
        click.echo(f"{incident['id']}  {incident['state']:8}  {incident['severity']:8}  {incident['title']}")
    if not found and not as_json:
        click.echo("no incidents", err=True)
    return 0


@cli.command()
@api_option
@click.argument("incident_id", metavar="[ID]", required=False)
@click.option("--at", "at", metavar="T", help="instead of ID: what happened then, RFC 3339 or Unix seconds")
@click.option("--service", default="", metavar="NAME", help="with --at: where it was noticed")
@click.option("--to", "to", metavar="T", help="with --at: what came later does not count; default 10 min after --at")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "html", "json"]), default="text")
@click.option("--json", "as_json", is_flag=True, help="the same as --format json")
@click.option("--replay", "again", is_flag=True, help="make the diagnosis again from its inputs; 1 where it differs")
@click.option("--inputs", type=click.Path(path_type=Path), metavar="FILE", help="save what it was made from, a zip")
def explain(
    api: str,
    incident_id: str | None,
    at: str | None,
    service: str,
    to: str | None,
    format_: str,
    as_json: bool,
    again: bool,
    inputs: Path | None,
) -> int:
    """One incident, or a moment: what broke, since when, how sure, who suffers, and the evidence."""
    if (incident_id is None) == (at is None):
        raise click.UsageError("ID or --at is needed, and not both")
    if at is None and (service or to):
        raise click.UsageError("--service and --to go with --at")
    if at is not None and (again or inputs is not None):
        raise click.UsageError("--replay and --inputs go with ID")
    with client(api) as asked:
        if incident_id is None:
            to_ns = None if to is None else time_of(to, "--to")
            return _shown(asked.diagnosis(time_of(str(at), "--at"), service, to_ns), api, format_, as_json)
        if inputs is not None:
            inputs.write_bytes(asked.inputs(incident_id))
            click.echo(f"{inputs}: what {incident_id} was diagnosed from", err=True)
            return 0
        if again:
            return _replayed(asked.replay_of(incident_id), as_json or format_ == "json")
        return _shown(asked.explained(incident_id), api, format_, as_json)


def _shown(body: Json, api: str, format_: str, as_json: bool) -> int:
    if as_json or format_ == "json":
        print_json(body)
    else:
        click.echo(text_of(body, format_, api.rstrip("/")), nl=False)
    return 0


def _replayed(answer: Json, as_json: bool) -> int:
    if as_json:
        print_json(answer)
    else:
        verb = "gives the same bytes" if answer["same"] else "DIFFERS"
        click.echo(f"the look of {answer['looked_at']}, made again, {verb}: sha256 {answer['sha256_recomputed']}")
    return 0 if answer["same"] else 1


@cli.command(name="audit")
@configured
@api_option
@as_json
def audit_command(api: str, as_json: bool, **given: Any) -> int:
    """Accounts for every span, point and log record: accepted = stored + rejected + pending."""
    store_option = given["store"]
    settings = settings_of(given)
    if reads_store_itself(settings, store_option):
        from observe import app

        body = app.audit_of(settings)
    else:
        body = client(api).audit()
    if as_json:
        print_json(body)
    else:
        click.echo(f"{'':14}{'accepted':>12}{'stored':>12}{'rejected':>12}{'pending':>12}")
        for name, n in body["signals"].items():
            click.echo(f"{name:14}{n['accepted']:12}{n['stored']:12}{n['rejected']:12}{n['pending']:12}")
        for name, reasons in body["reasons"].items():
            for reason, items in reasons.items():
                click.echo(f"rejected {name}: {reason} {items}")
        for name, items in body["repeated"].items():
            if items:
                click.echo(f"sent again and stored once, {name}: {items}")
        click.echo(f"dead letters: {body['dead_letters']}")
        if body["differing_windows"]:
            click.echo(f"windows that count otherwise than the spans: {body['differing_windows']}")
        for sentence in body.get("advice", ()):  # an API of an older version gives none
            click.echo(f"! {sentence}")
    return 0 if body["ok"] else 1
