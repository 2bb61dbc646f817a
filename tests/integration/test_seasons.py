"""A nightly job in a store that holds days of it: watching, a backtest and the audit say the same of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from observe import pipeline
from observe.frames import PastQuestion
from observe.judging import Judging
from observe.looks import compared, unpack
from observe.settings import load
from observe.store import ClickHouseStore
from observe.types import WINDOW_NS, Incident, State
from observe.verdict import again
from tests.fixtures.stores import Opened

SECOND = 10**9
DAY_NS = 86_400 * SECOND
SETTINGS = load(environ={}, options={"detect.baseline_s": 600})

# Windows of ten requests a second: 100 to 120 ms, and in the job of shop and api five times as long. Today api's is
# twenty times as long.
HISTORY = """
INSERT INTO service_windows
SELECT toDateTime(at, 'UTC'), service, 'GET /', 'Server', '1', 100, 0, 11000000000, 600000000,
    map(toInt16(106 + later), toUInt64(60), toInt16(110 + later), toUInt64(40))
FROM (
    SELECT {from:Int64} + 10 * number AS at, arrayJoin(['shop', 'api', 'other']) AS service,
        multiIf(service = 'other' OR ((at - {job:Int64}) % 86400 + 86400) % 86400 >= 600, 0,
            service = 'api' AND at >= {job:Int64}, 69, 37) AS later
    FROM numbers({windows:UInt64})
)
"""


class Site:
    """`job_ns` is when today's job begins; there were three days with it before."""

    def __init__(self, store: ClickHouseStore) -> None:
        self.store = store
        self.job_ns = (time.time_ns() - 1800 * SECOND) // WINDOW_NS * WINDOW_NS
        job_s = self.job_ns // SECOND
        first_s = job_s - 3 * 86_400 - 1800
        store.execute(HISTORY, {"from": first_s, "windows": (job_s + 240 - first_s) // 10, "job": job_s})

    @property
    def range_ns(self) -> tuple[int, int]:
        return self.job_ns + 10 * SECOND, self.job_ns + 60 * SECOND

    def watched(self) -> list[Incident]:
        """What people are told of in the job's first minute."""
        told: dict[str, Incident] = {}

        def tell(incidents: Sequence[Incident], now_ns: int) -> None:
            told.update({i.id: i for i in incidents})

        watcher = pipeline.Watcher(self.store, tell, SETTINGS)
        at_ns, end_ns = self.range_ns
        while (at_ns := pipeline.next_look_ns(at_ns, SETTINGS)) <= end_ns + 12 * SECOND:
            watcher.look_at(at_ns)
        return list(told.values())


@pytest.fixture(scope="module")
def site(opened_store: Opened) -> Iterator[Site]:
    with opened_store("chdb") as store:
        yield Site(store)


def test_a_job_is_usual_and_what_is_more_is_told_in_watching_backtest_and_audit(site):
    (told,) = site.watched()
    assert {s.service for s in told.symptoms} == {"api"}
    (text,) = [e.text for e in told.causes[0].evidence if e.kind == "season"]
    assert text == (
        "not explained by the time of day: at this time on the last 3 days api GET / P99 was 608 ms at most"
    )

    (usual,) = [i for i in site.store.incidents(from_ns=site.job_ns - 60 * SECOND) if i.usual]
    assert usual.state is State.PENDING
    assert usual.note.startswith("usual at this time: shop GET / ")
    assert usual.note.endswith(" on 3 of the last 3 days")

    judging = Judging(site.store, SETTINGS)
    assert judging.backtest(*site.range_ns)["recorded"]["in_both"][0]["recorded_id"] == told.id
    (both,) = judging.backtest(*site.range_ns, values={"detect.seasons": False})["incidents"]
    assert {s["service"] for s in both["symptoms"]} == {"api", "shop"}

    looked_ns, stored = site.store.diagnosed(told.id)
    assert compared(stored, again(unpack(site.store.inputs(looked_ns))))["same"]


def test_the_past_is_read_by_series_and_range(site):
    ranges = tuple((site.job_ns - k * DAY_NS, site.job_ns - k * DAY_NS + 60 * SECOND) for k in (2, 1))
    windows = site.store.past(PastQuestion(("shop",), ranges)).windows
    assert windows["window_start_ns"].to_list() == [a + i * WINDOW_NS for a, _ in ranges for i in range(6)]
    assert set(windows["service"]) == {"shop"}
    assert site.store.past(PastQuestion(("shop",), ranges, "windows", ("GET /none",))).windows.is_empty()
    assert site.store.past(PastQuestion((), ranges)).windows.is_empty()
    block_ns = site.job_ns // (300 * SECOND) * 300 * SECOND - DAY_NS
    blocks = site.store.past(PastQuestion(("shop",), ((block_ns, block_ns + 1),), "blocks", ("GET /",))).blocks
    assert blocks["requests"].to_list() == [3000]
    assert site.store.past(PastQuestion(("shop",), ranges, "metrics")).gauges.is_empty()
