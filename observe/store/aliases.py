"""Attributes that were renamed: whoever asks by one spelling finds what was sent under any of them.

Semantic conventions 1.44 and what came before (HTTP up to 1.22, databases 1.27, messaging 1.24, RPC 1.38, GenAI 1.36).
Many SDKs still send the old names unless OTEL_SEMCONV_STABILITY_OPT_IN says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

CHAINS: Sequence[tuple[str, ...]] = (
    ("service.peer.name", "peer.service"),
    ("deployment.environment.name", "deployment.environment"),
    ("http.request.method", "http.method"),
    ("http.response.status_code", "http.status_code"),
    ("http.request.resend_count", "http.resend_count"),
    ("url.full", "http.url"),
    ("url.path", "http.target"),
    ("url.scheme", "http.scheme"),
    ("user_agent.original", "http.user_agent"),
    ("client.address", "http.client_ip"),
    ("server.address", "net.peer.name", "net.host.name", "http.host"),
    ("server.port", "net.peer.port", "net.host.port"),
    ("network.peer.address", "net.sock.peer.addr", "net.peer.ip"),
    ("network.peer.port", "net.sock.peer.port"),
    ("network.protocol.version", "http.flavor"),
    ("network.transport", "net.transport"),
    ("rpc.system.name", "rpc.system"),
    ("rpc.status_code", "rpc.response.status_code", "rpc.grpc.status_code"),
    ("db.system.name", "db.system"),
    ("db.namespace", "db.name"),
    ("db.collection.name", "db.sql.table", "db.mongodb.collection", "db.cassandra.table"),
    ("db.operation.name", "db.operation"),
    ("db.query.text", "db.statement"),
    ("messaging.destination.name", "messaging.destination"),
    ("messaging.destination.partition.id", "messaging.kafka.destination.partition", "messaging.kafka.partition"),
    ("messaging.operation.type", "messaging.operation"),
    ("messaging.consumer.group.name", "messaging.kafka.consumer.group"),
    ("messaging.client.id", "messaging.client_id"),
    ("messaging.kafka.offset", "messaging.kafka.message.offset"),
    ("gen_ai.provider.name", "gen_ai.system"),
    ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
)
"""Each from the newest spelling to the oldest."""

GRPC_CODES: Sequence[str] = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""By their number, which `rpc.grpc.status_code` holds where the newer names hold the word."""

DATABASES: Mapping[str, str] = {"microsoft.sql_server": "mssql", "oracle.db": "oracle", "gcp.spanner": "spanner"}
"""Values of `db.system.name`, and what `db.system` calls the same."""

_CHAIN_OF = {name: chain for chain in CHAINS for name in chain}
_PLACEHOLDER = re.compile(r"<<(\w+)\|([\w.]+)>>")


def spellings(name: str) -> tuple[str, ...]:
    """The names under which an attribute may have been sent, the newest first.

    >>> spellings("db.system"), spellings("shop.id")
    (('db.system.name', 'db.system'), ('shop.id',))
    """
    return _CHAIN_OF.get(name, (name,))


def values(name: str, value: str) -> tuple[str, ...]:
    """The values that mean the same in any spelling of the attribute.

    >>> values("rpc.status_code", "UNAVAILABLE"), values("rpc.grpc.status_code", "14"), values("db.system", "mssql")
    (('UNAVAILABLE', '14'), ('14', 'UNAVAILABLE'), ('mssql', 'microsoft.sql_server'))
    """
    newest = spellings(name)[0]
    if newest == "rpc.status_code":
        pairs = {code: str(number) for number, code in enumerate(GRPC_CODES)}
    elif newest == "db.system.name":
        pairs = dict(DATABASES)
    else:
        pairs = {}
    other = pairs.get(value) or {old: new for new, old in pairs.items()}.get(value)
    return (value, other) if other else (value,)


def expand(sql: str) -> str:
    """`<<a|db.system.name>>` as lookups in the map `a` under each spelling, newest first, for an array literal.

    >>> expand("[<<a|db.namespace>>]")
    "[a['db.namespace'], a['db.name']]"
    """
    return _PLACEHOLDER.sub(lambda m: ", ".join(f"{m[1]}['{name}']" for name in spellings(m[2])), sql)
