"""Commands that judge: two versions, other settings on the past, this installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

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
    time_of,
)
from observe.types import Json

from_option = click.option("--from", "from_", metavar="T", help="RFC 3339 or Unix seconds [an hour before --to]")
to_option = click.option("--to", metavar="T", help="RFC 3339 or Unix seconds [now]")
SIGNS = {"ok": "ok", "warning": "warning", "failed": "FAILED", "unreachable": "AWAY"}


@cli.command()
@configured
@api_option
@click.option("--service", required=True)
@click.option("--baseline", required=True, metavar="V1", help="service.version of the old one")
@click.option("--candidate", required=True, metavar="V2", help="service.version of the new one")
@from_option
@to_option
@as_json
def canary(
    api: str,
    service: str,
    baseline: str,
    candidate: str,
    from_: str | None,
    to: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Compares two versions that run side by side: 0 promote, 1 hold or roll back."""
    store_option = given["store"]
    settings = settings_of(given)
    bounds = [None if text is None else time_of(text, name) for text, name in ((from_, "--from"), (to, "--to"))]
    if reads_store_itself(settings, store_option):
        import time

        from observe import app

        to_ns = bounds[1] or time.time_ns()
        with app.opened_store(settings) as store:
            judging = app.judging_of(store, settings)
            body = judging.canary(service, baseline, candidate, bounds[0] or to_ns - 3600 * 10**9, to_ns)
    else:
        body = client(api).canary(service, baseline, candidate, *bounds)
    if as_json:
        print_json(body)
    else:
        _show_canary(body)
    return 0 if body["verdict"] == "promote" else 1


def _show_canary(body: Json) -> None:
    old, new = body["baseline"], body["candidate"]
    click.echo(f"{body['service']} {old['version']} → {new['version']}: {body['verdict']}")
    click.echo(f"compared: {old['requests']} and {new['requests']} requests, from {body['from']} to {body['to']}")
    for check in body["checks"]:
        click.echo(f"  {check['finding']:8} {check['text']} (p = {check['p_value']:.2g})")
    for reason in body["reasons"]:
        click.echo(f"- {reason}")


@cli.command()
@configured
@api_option
@from_option
@to_option
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='what is known to have happened: [{"from", "to", "service", "cause", "name"}] as JSON',
)
@as_json
def backtest(api: str, from_: str | None, to: str | None, labels: Path | None, as_json: bool, **given: Any) -> int:
    """Judges stored history again, with the settings given by --set, beside what was recorded and what is known to have
    happened: 1 where a label was missed."""
    store_option, tried = given["store"], dict(text.partition("=")[::2] for text in given["sets"])
    if reads := (store_option or "").startswith("clickhouse"):
        given["sets"] = ()
    settings = settings_of(given)
    import time

    to_ns = time.time_ns() if to is None else time_of(to, "--to")
    from_ns = to_ns - 3600 * 10**9 if from_ is None else time_of(from_, "--from")
    if to_ns <= from_ns:
        raise click.UsageError("--to must be later than --from")
    known = _labels(labels)
    if reads:
        from observe import app

        with app.opened_store(settings) as store:
            marks = [_label(one) for one in known]
            body = app.judging_of(store, settings).backtest(from_ns, to_ns, marks, tried, progress())
    else:
        body = client(api).backtest(from_ns, to_ns, known, tried)
    if as_json:
        print_json(body)
    else:
        _show_backtest(body)
    return 1 if any(one["incident_id"] is None for one in body["labels"]) else 0


def _labels(file: Path | None) -> list[Json]:
    if file is None:
        return []
    try:
        found = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--labels {file}: {error}") from error
    found = found.get("labels") if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(one, dict) and {"from", "to"} <= {*one} for one in found):
        raise click.UsageError(f'--labels {file}: a list of {{"from": T, "to": T, "service": …, "cause": …}} is needed')
    return found


def _label(one: Json) -> Any:
    from observe.backtest import Label

    times = [time_of(str(one[name]), "--labels") for name in ("from", "to")]
    return Label(times[0], times[1], *(str(one.get(name, "")) for name in ("service", "cause", "name")))


def _show_backtest(body: Json) -> None:
    recorded = body["recorded"]
    click.echo(f"{len(body['incidents'])} incidents with these settings, {recorded['incidents']} were recorded")
    click.echo(f"{len(recorded['in_both'])} are in both")
    for word, key in (("only now", "only_replayed"), ("only then", "only_recorded")):
        for one in recorded[key]:
            click.echo(f"  {word:9} {one['onset_at']}  {one['title']}")
    for one in body["labels"]:
        told = "missed" if one["incident_id"] is None else f"found after {one['delay_s']:.0f} s"
        click.echo(f"  {one['name'] or one['from']}: {told}")
    if body["score"]:
        click.echo("  ".join(f"{key} {value}" for key, value in body["score"].items()))


@cli.command()
@configured
@as_json
def doctor(as_json: bool, **given: Any) -> int:
    """Checks settings, ports, stream, store, schema, clocks, GPUs and receivers, and says what to do."""
    settings = settings_of(given)
    from observe import app
    from observe.doctor import exit_code, report

    checks = app.doctor(settings)
    if as_json:
        print_json(report(checks))
    for check in [] if as_json else checks:
        click.echo(
            f"{SIGNS[check.status]:8} {check.check}: {check.found}" + (f"\n         → {check.do}" if check.do else "")
        )
    return exit_code(checks)
