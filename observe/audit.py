"""Accounting: every item that the stream ever took is stored, rejected with a reason, or pending."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from observe.advice import advice
from observe.interfaces import Store, StreamAdmin
from observe.types import DEAD_LETTERS, TOPICS, Json, PartitionState

NAMES = {TOPICS["spans"]: "spans", TOPICS["metrics"]: "metric_points", TOPICS["logs"]: "log_records"}
REASONS = "SELECT Signal, Reason, count() AS items FROM rejected GROUP BY Signal, Reason ORDER BY Signal, Reason"
REPEATED = """
SELECT Topic, sum(Once) AS items
FROM (SELECT Topic, max(Repeated) AS Once FROM digests WHERE Repeated > 0 GROUP BY Topic, Partition, Offset)
GROUP BY Topic
"""
ROLLUPS = """
WITH toDateTime(intDiv(toUnixTimestamp(now()) - 86400, 10) * 10, 'UTC') AS first,
    (SELECT max(DurationMaxNs) FROM service_windows WHERE Window >= first) AS longest
SELECT Window AS window, sum(n) AS difference FROM (
    SELECT Window, toInt64(Requests) AS n FROM service_windows WHERE Window >= first
    UNION ALL
    SELECT toDateTime(intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 10000000000) * 10, 'UTC') AS Window,
        toInt64(-1) AS n
    FROM otel_traces WHERE Timestamp >= fromUnixTimestamp64Nano(toUnixTimestamp(first) * 1000000000 - toInt64(longest))
        AND Window >= first
) GROUP BY window HAVING difference != 0 ORDER BY window
"""
"""Windows of the last day that count another number of requests than there are spans."""

LETTERS_READ = 1000
READINGS = 20
BETWEEN_READINGS_S = 0.1

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Account:
    """One partition. `written` is what the writer said it inserted; the rows, counted, must say the same."""

    state: PartitionState
    written: int = 0
    stored: int = 0
    rejected: int = 0
    first_offset: int = -1
    next_offset: int = -1
    gaps: int = 0
    overlaps: int = 0
    pending: int = 0

    @property
    def balanced(self) -> bool:
        return self.written == self.stored + self.rejected

    @property
    def missed(self) -> int:
        """Offsets that were committed beyond what the store knows: they left the stream and arrived nowhere."""
        known = self.state.begin if self.next_offset < 0 else self.next_offset
        return max(0, self.state.committed - known)

    @property
    def ok(self) -> bool:
        return self.balanced and self.gaps == self.overlaps == self.missed == 0


def audit(store: Store, admin: StreamAdmin, group: str, *, wait: Callable[[float], None] = time.sleep) -> Json:
    """The audit by the public contract. Takes up to two seconds where an insert is half visible at each reading."""
    accounts = _read(store, admin, group)
    for _ in range(READINGS):
        if all(account.balanced for account in accounts.values()):
            break
        wait(BETWEEN_READINGS_S)
        # Partitions are independent: each keeps its own consistent reading.
        accounts = _read(store, admin, group) | {key: one for key, one in accounts.items() if one.balanced}
    mine = [account for key, account in sorted(accounts.items()) if key[0] in NAMES]
    partitions = [_partition(account) for account in mine]
    differing = _differing(store, wait)
    return {
        "signals": {name: _signal([a for a in mine if a.state.topic == topic]) for topic, name in NAMES.items()},
        "partitions": partitions,
        "reasons": _reasons(store),
        "differing_windows": differing,
        "repeated": _repeated(store),
        "dead_letters": _dead_letters(admin, [account.state for account in accounts.values()]),
        "ok": all(account.ok for account in mine) and differing == 0,
        "advice": advice(partitions, differing),
    }


def _read(store: Store, admin: StreamAdmin, group: str) -> dict[Key, Account]:
    """One reading, in the order in which items move, against their direction: what is committed, what is stored, and
    then what is pending from where the store ends. An insert or a commit in between is so neither missed nor counted
    twice."""
    states = {(state.topic, state.partition): state for state in admin.partitions(group)}
    rows = {(row["topic"], row["partition"]): row for row in store.ledger().iter_rows(named=True)}
    since = {key: rows[key]["next_offset"] if key in rows else state.committed for key, state in states.items()}
    pending = admin.pending(group, since)
    return {key: _account(state, rows.get(key), pending.get(key, 0)) for key, state in states.items()}


def _account(state: PartitionState, row: Json | None, pending: int) -> Account:
    if row is None:
        return Account(state, pending=pending)
    names = ("stored", "rejected", "first_offset", "next_offset", "gaps", "overlaps")
    return Account(state, row["accepted"], pending=pending, **{name: row[name] for name in names})


def _signal(accounts: Sequence[Account]) -> Json:
    return {
        "accepted": sum(a.written + a.pending for a in accounts),
        "stored": sum(a.stored for a in accounts),
        "rejected": sum(a.rejected for a in accounts),
        "pending": sum(a.pending for a in accounts),
    }


def _partition(account: Account) -> Json:
    state = account.state
    return {
        "topic": state.topic,
        "partition": state.partition,
        "begin": state.begin,
        "committed": state.committed,
        "end": state.end,
        "accepted": account.written + account.pending,
        "stored": account.stored,
        "rejected": account.rejected,
        "pending": account.pending,
        "first_offset": account.first_offset,
        "next_offset": account.next_offset,
        "gaps": account.gaps,
        "overlaps": account.overlaps,
        "missed": account.missed,
        "ok": account.ok,
    }


def _differing(store: Store, wait: Callable[[float], None]) -> int:
    """How many windows of the last day count otherwise than the spans do. An insert that is half visible differs for a
    moment, and never twice by the same number."""
    lasting = set(store.query(ROLLUPS).iter_rows())
    for _ in range(READINGS):
        if not lasting:
            break
        wait(BETWEEN_READINGS_S)
        again = set(store.query(ROLLUPS).iter_rows())
        if again == lasting:
            break
        lasting &= again
    return len(lasting)


def _reasons(store: Store) -> Json:
    """Why items were rejected, and how many, by signal."""
    reasons: Json = {name: {} for name in NAMES.values()}
    for row in store.query(REASONS).iter_rows(named=True):
        reasons[NAMES[TOPICS[row["Signal"]]]][row["Reason"]] = row["items"]
    return reasons


def _repeated(store: Store) -> Json:
    """Items of exports that came again as far back as traces are kept; accepted counts them once."""
    counts = dict.fromkeys(NAMES.values(), 0)
    counts.update({NAMES[row["Topic"]]: row["items"] for row in store.query(REPEATED).iter_rows(named=True)})
    return counts


def _dead_letters(admin: StreamAdmin, states: Iterable[PartitionState]) -> int:
    """How many records were put aside. A writer that died in between puts one aside twice, so they are told apart."""
    total = sum(state.end - state.begin for state in states if state.topic == DEAD_LETTERS)
    if not 0 < total <= LETTERS_READ:
        return total
    return len({(x["topic"], x["partition"], x["offset"]) for x in admin.dead_letters(LETTERS_READ)})
