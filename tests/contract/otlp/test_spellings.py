"""Old and new names of attributes mean the same to what we ask, on both stores."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from observe.store import ClickHouseStore
from observe.store.aliases import CHAINS
from observe.store.read import Reader
from observe.types import WINDOW_NS
from tests.fixtures.records import CLIENT, PRODUCER, Span, batch, request

BASE_NS = (time.time_ns() // WINDOW_NS - 3 * 360) * WINDOW_NS

PEERS: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "new service": ({"service.peer.name": "billing"}, "billing", "external"),
    "old service": ({"peer.service": "billing-old"}, "billing-old", "external"),
    "namespaced": ({"service.peer.name": "cart", "service.peer.namespace": "shop"}, "shop/cart", "external"),
    "new url": ({"url.full": "https://new.example/v1?x"}, "new.example", "external"),
    "old url": ({"http.url": "http://old.example:81/v1"}, "old.example", "external"),
    "old host": ({"http.host": "host.example"}, "host.example", "external"),
    "old name": ({"net.peer.name": "name.example", "net.host.name": "me"}, "name.example", "external"),
    "old address": ({"net.sock.peer.addr": "10.1.1.1"}, "10.1.1.1", "external"),
    "new database": ({"db.system.name": "postgresql", "db.namespace": "orders"}, "orders", "database"),
    "old database": ({"db.system": "mysql", "db.name": "stock"}, "stock", "database"),
    "bare database": ({"db.system": "redis"}, "redis", "database"),
    "new model": ({"gen_ai.provider.name": "openai"}, "openai", "external"),
    "old model": ({"gen_ai.system": "anthropic"}, "anthropic", "external"),
    "new topic": ({"messaging.destination.name": "invoices"}, "invoices", "external"),
    "old topic": ({"messaging.destination": "letters"}, "letters", "external"),
}
SAME = [
    ("http.response.status_code", "503", "http.status_code", "503"),
    ("http.status_code", "418", "http.response.status_code", "418"),
    ("rpc.status_code", "UNAVAILABLE", "rpc.grpc.status_code", "14"),
    ("rpc.grpc.status_code", "4", "rpc.response.status_code", "DEADLINE_EXCEEDED"),
    ("db.system.name", "microsoft.sql_server", "db.system", "mssql"),
    ("db.query.text", "SELECT 1", "db.statement", "SELECT 1"),
    ("gen_ai.usage.input_tokens", "77", "gen_ai.usage.prompt_tokens", "77"),
    ("messaging.kafka.consumer.group", "readers", "messaging.consumer.group.name", "readers"),
]


@pytest.fixture(scope="module")
def store(opened: ClickHouseStore) -> ClickHouseStore:
    opened.insert(batch("otlp_spans", 9, 0, spans()), len(PEERS) + len(SAME))
    return opened


def spans() -> bytes:
    calls = [
        Span("caller", name, kind=PRODUCER if "topic" in name else CLIENT, attributes=attributes)
        for name, (attributes, _, _) in PEERS.items()
    ]
    sent = [Span("sender", f"sent {key} {value}", attributes={key: value}) for _, _, key, value in SAME]
    return request([*calls, *sent], BASE_NS)


def test_a_peer_has_its_name_under_any_spelling(store: ClickHouseStore) -> None:
    edges = store.frames(BASE_NS, BASE_NS + 6 * WINDOW_NS).edges.filter(caller="caller")
    found = {row["callee_operation"]: (row["callee"], row["connection"]) for row in edges.to_dicts()}
    assert found == {name: (callee, connection) for name, (_, callee, connection) in PEERS.items()}


@pytest.mark.parametrize(("key", "value", "sent_key", "sent_value"), SAME)
def test_a_search_finds_what_was_sent_under_another_spelling(
    store: ClickHouseStore, key: str, value: str, sent_key: str, sent_value: str
) -> None:
    reader = Reader(store)
    found = reader.traces(BASE_NS, BASE_NS + WINDOW_NS, attributes={key: value})
    assert [trace["operation"] for trace in found] == [f"sent {sent_key} {sent_value}"]
    assert reader.traces(BASE_NS, BASE_NS + WINDOW_NS, attributes={key: "something else"}) == []


def test_no_attribute_is_in_two_chains() -> None:
    names = [name for chain in CHAINS for name in chain]
    assert len(names) == len(set(names))
