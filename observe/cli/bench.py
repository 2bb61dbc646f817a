"""Commands that measure speed and quality."""

from __future__ import annotations

from pathlib import Path

import click

from observe.cli.options import as_json, cli, count, print_json


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
        print_json(result)
    else:
        click.echo("\n".join(f"{key:28}{value}" for key, value in result.items()))
    return 0


@bench.command(name="diagnose")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option(
    "--made-up", type=click.IntRange(1), metavar="CASES", help="recordings made up in many dialects, no spans"
)
@click.option("--seed", type=click.IntRange(0), default=2, show_default=True, help="of --made-up")
@click.option("--pipeline", is_flag=True, help="of --data: traces as OTLP through store, detection and live diagnosis")
@click.option("--case", "chosen", multiple=True, metavar="NAME", help="of --data: shell pattern; repeatable")
@click.option("--services", "sizes", type=click.IntRange(20), multiple=True, help="how many, for speed; repeatable")
@as_json
def bench_diagnose(
    data: Path | None,
    made_up: int | None,
    seed: int,
    pipeline: bool,
    chosen: tuple[str, ...],
    sizes: tuple[int, ...],
    as_json: bool,
) -> int:
    """With --data the root causes of the labelled cases in a folder: ranked services, and how often they are right.
    Without it the seconds from what was noticed to ranked causes by size of the fleet."""
    from observe.bench import diagnose, recorded, speed

    if sum((data is not None, made_up is not None, bool(sizes))) > 1:
        raise click.UsageError("--data, --made-up and --services exclude each other")
    if data is None and (pipeline or chosen):
        raise click.UsageError("--pipeline and --case go with --data")
    if data is not None:
        result = diagnose.diagnose(data, progress=count("cases"), chosen=chosen, pipeline=pipeline)
    elif made_up is not None:
        result = diagnose.scored("made up", recorded.recorded(seed, made_up), progress=count("cases"))
    else:
        wanted = [(size, 5 * size) for size in sorted(sizes)] or speed.SIZES
        result = speed.speed(wanted, progress=count("services"))
    if as_json:
        print_json(result)
    else:
        click.echo(diagnose.text(result) if "cases" in result else speed.text(result))
    return 0


@bench.command(name="detect")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option("--series", "sizes", type=click.IntRange(1), multiple=True, help="how many, without --data; repeatable")
@click.option("--sql/--no-sql", default=True, help="also what the store's part of a look costs, in a store of its own")
@as_json
def bench_detect(data: Path | None, sizes: tuple[int, ...], sql: bool, as_json: bool) -> int:
    """With --data the labelled gauges in a folder: when each was told of, and NAB's score. Without it the seconds and
    memory of one look by number of series."""
    from observe.bench import detect, ticks

    if data is not None and sizes:
        raise click.UsageError("--series goes without --data")
    if data is not None:
        result = detect.detect_data(data, progress=count("cases"))
    else:
        result = ticks.ticks(sorted(sizes) or ticks.SIZES, progress=count("series"), sql=sql)
    if as_json:
        print_json(result)
    else:
        click.echo(detect.text(result))
    return 0
