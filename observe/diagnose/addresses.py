"""Addresses that stand for an instrumented service: calls that never arrived know nothing else of their callee."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import polars as pl


def resolved(edges: pl.DataFrame, selfs: pl.DataFrame) -> pl.DataFrame:
    """EDGE_WINDOWS rows whose callee is an address of a service in SELF_WINDOWS rows take its name.

    A callee whose spans are missing, since it died or was cut off, must not look like an outside address. Known are
    `reranker:8080`, `reranker.prod.svc`, the id of an instance (`10.0.0.7:8080`, `reranker-2`), and a host that runs
    nothing but one service.
    """
    unseen = edges.filter(pl.col("server_sum_ms").is_null())
    if not unseen.height:
        return edges
    named = _names(selfs["service"].unique().to_list())
    places = _places(selfs)
    found: dict[str, dict[str, str]] = {"database": {}, "": {}}
    for callee, connection in unseen.select("callee", "connection").unique().iter_rows():
        # A database beside a service has the address of its host, so only a name of its own makes it one.
        kind = "database" if connection == "database" else ""
        service = _service(callee, named, {} if kind else places)
        if service not in (None, callee):
            found[kind][callee] = service
    if not any(found.values()):
        return edges
    known = pl.when(pl.col("connection") == "database")
    name = known.then(pl.col("callee").replace(found["database"])).otherwise(pl.col("callee").replace(found[""]))
    return edges.with_columns(callee=pl.when(pl.col("server_sum_ms").is_null()).then(name).otherwise("callee"))


def _names(services: Iterable[str]) -> dict[str, str]:
    """Services by their whole names, and by their names without the namespace where only one has that."""
    whole = {service: service for service in services}
    bare = Counter(service.rpartition("/")[2] for service in whole)
    return {service.rpartition("/")[2]: service for service in whole if bare[service.rpartition("/")[2]] == 1} | whole


def _service(address: str, named: dict[str, str], places: dict[str, str]) -> str | None:
    if address in named:
        return named[address]
    host = address.split(":")[0]
    first = host.split(".")[0]
    if first in named:
        return named[first]
    return next((places[name] for name in (address, host, first) if name in places), None)


def _places(selfs: pl.DataFrame) -> dict[str, str]:
    """Names of instances, and of hosts, that belong to one service."""
    owners: dict[str, set[str]] = defaultdict(set)
    rows: Iterable[tuple[str, str, str]] = selfs.select("service", "instance", "host").unique().iter_rows()
    for service, instance, host in rows:
        for name in (instance, host):
            if name:
                owners[name].add(service)
    return {name: next(iter(services)) for name, services in owners.items() if len(services) == 1}
