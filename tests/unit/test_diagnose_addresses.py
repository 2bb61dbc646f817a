"""Addresses of callees whose spans are missing, and the services that they stand for."""

import polars as pl

from observe.diagnose.addresses import resolved
from observe.frames import EDGE_WINDOWS, SELF_WINDOWS


def callees(services: list[str], addresses: list[str]) -> list[str]:
    selfs = pl.DataFrame({"service": services, "instance": "", "host": ""})
    selfs = pl.concat([pl.DataFrame(schema=SELF_WINDOWS), selfs], how="diagonal")
    edges = pl.DataFrame({"callee": addresses, "connection": ["external"] * len(addresses)})
    edges = pl.concat([pl.DataFrame(schema=EDGE_WINDOWS), edges], how="diagonal")
    return resolved(edges, selfs)["callee"].to_list()


def test_a_bare_name_is_the_service_of_that_name_in_its_namespace() -> None:
    known = ["shop/cart", "shop/gateway", "media/gateway", "billing"]
    asked = ["cart", "cart:8080", "cart.shop.svc", "billing", "gateway", "elsewhere.example", "shop/cart"]
    found = ["shop/cart"] * 3 + ["billing", "gateway", "elsewhere.example", "shop/cart"]
    assert callees(known, asked) == found
