"""Real OTLP through the store and the watcher's code: prompts, engines, releases and budgets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from observe import pipeline
from observe.backtest import Label
from observe.errors import BadRecord
from observe.judging import Judging
from observe.settings import Settings, load
from observe.store import ClickHouseStore
from observe.telemetry import REVISED, SLO_BUDGET
from observe.types import WINDOW_NS, CauseKind, Incident
from observe.wire import incident_json
from tests.fixtures.records import CLIENT, INTERNAL, SERVER, Span, batch, request
from tests.fixtures.stores import Opened

MINUTE = 60 * 10**9
BEFORE_MIN, AFTER_MIN = 4, 2.5
RATE = 3.0  # conversations a second


@pytest.fixture(scope="module")
def store(opened_store: Opened) -> Iterator[ClickHouseStore]:
    with opened_store("chdb") as store:
        yield store


class Scene:
    """Minutes of a gateway that asks an engine, in an hour of its own."""

    def __init__(self, store: ClickHouseStore, number: int, after_min: float = AFTER_MIN) -> None:
        self.store, self.number, self.minutes = store, number, BEFORE_MIN + after_min
        self.start_ns = (time.time_ns() - (number + 1) * 3 * 3600 * 10**9) // WINDOW_NS * WINDOW_NS
        self.onset_ns = self.start_ns + BEFORE_MIN * MINUTE
        self.end_ns = self.start_ns + int(self.minutes * MINUTE)
        self.rng = np.random.default_rng(number)

    def play(
        self,
        *,
        prompts: tuple[float, float] = (600, 600),
        slower: tuple[float, float] = (1.0, 1.0),
        candidate: Mapping[str, Any] | None = None,
    ) -> None:
        """`candidate` (share, slower, errors) takes its share of the engine's calls once the onset is there."""
        for offset, chunk in enumerate(
            np.array_split(np.array(self.spans(prompts, slower, candidate), dtype=object), 4)
        ):
            self.insert(offset, list(chunk))

    def insert(self, offset: int, spans: list[Span]) -> None:
        self.store.insert(batch("otlp_spans", self.number, offset, request(spans, self.start_ns)), len(spans))

    def spans(
        self, prompts: tuple[float, float], slower: tuple[float, float], candidate: Mapping[str, Any] | None = None
    ) -> list[Span]:
        spans: list[Span] = []
        for at_s in np.arange(0.0, self.minutes * 60, 1.0 / RATE):
            now = int(at_s >= BEFORE_MIN * 60)
            new = candidate if candidate and now and self.rng.random() < candidate["share"] else None
            spans += self._chat(at_s * 1e3, prompts[now], (new or {}).get("slower", slower[now]), new)
        return spans

    def _chat(self, at_ms: float, prompt: float, slower: float, new: Mapping[str, Any] | None) -> list[Span]:
        tokens_in = int(prompt * self.rng.lognormal(0, 0.5)) + 2
        tokens_out = int(40 * self.rng.lognormal(0, 0.4)) + 2
        first_ms = slower * (20 + 0.4 * tokens_in) * self.rng.lognormal(0, 0.1)
        total_ms = first_ms + slower * 8 * tokens_out * self.rng.lognormal(0, 0.1)
        failed = bool(new) and self.rng.random() < new.get("errors", 0.0) if new else False
        version = {"service.version": "2" if new else "1"}
        door = Span("gateway", "POST /chat", at_ms, total_ms + 12, kind=SERVER, error=failed)
        call = Span("gateway", "POST", at_ms + 4, total_ms + 6, door, CLIENT, failed)
        served = Span("engine", "POST /v1/chat", at_ms + 6, total_ms + 2, call, SERVER, failed, resource=version)
        attributes = {
            "gen_ai.request.model": "llama",
            "gen_ai.usage.input_tokens": tokens_in,
            "gen_ai.usage.output_tokens": tokens_out,
            "gen_ai.latency.time_to_first_token": first_ms / 1e3,
        }
        model = Span("engine", "chat llama", at_ms + 7, total_ms, served, INTERNAL, failed, attributes, version)
        return [door, call, served, model]

    def replay(self, **options: object) -> list[Incident]:
        settings = load(environ={}, options=dict(options))
        return pipeline.replay(self.reader(settings), self.onset_ns - MINUTE // 2, self.end_ns, settings)

    def judging(self, **options: object) -> Judging:
        return Judging(self.store, load(environ={}, options=dict(options)), clock=lambda: self.end_ns + 12 * 10**9)

    def reader(self, settings: Settings) -> Any:
        return lambda from_ns, to_ns: pipeline.picture(self.store, from_ns, to_ns, settings)


def test_longer_prompts_are_no_incident(store: ClickHouseStore) -> None:
    scene = Scene(store, 1)
    scene.play(prompts=(600, 3000))
    assert [incident.title for incident in scene.replay()] == []


def test_a_slower_engine_under_shorter_prompts_is_an_incident_that_says_so(store: ClickHouseStore) -> None:
    scene = Scene(store, 2)
    scene.play(prompts=(2400, 400), slower=(1.0, 2.4))
    (incident,) = scene.replay()
    assert incident.causes[0].service == "engine"
    told = [evidence.text for evidence in incident.causes[0].evidence if evidence.kind == "tokens"]
    assert told
    assert "given the tokens" in told[0]
    assert abs(incident.onset_ns - scene.onset_ns) <= 20 * 10**9
    label = Label(scene.onset_ns, scene.end_ns, "gateway", "engine", "throttled")
    tried = scene.judging().backtest(scene.onset_ns, scene.end_ns, [label], {"detect.p99_min_increase": 20})
    assert tried["labels"][0]["incident_id"] is None
    assert tried["score"]["recall"] == 0
    with pytest.raises(BadRecord, match="store"):
        scene.judging().backtest(scene.onset_ns, scene.end_ns, [], {"store": "chdb:///elsewhere"})


def test_a_bad_release_beside_the_old_one_is_told_by_its_version(store: ClickHouseStore) -> None:
    scene = Scene(store, 3)
    scene.play(candidate={"share": 0.3, "slower": 1.0, "errors": 0.3})
    incidents = scene.replay()
    assert incidents
    first = incidents[0].causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.VERSION, "engine", "2")
    judged = scene.judging().canary("engine", "1", "2", scene.onset_ns, scene.end_ns)
    assert judged["verdict"] == "roll back"
    assert judged["given_tokens"]
    assert [check["measure"] for check in judged["checks"] if check["finding"] == "worse"] == ["error_ratio"]
    with pytest.raises(BadRecord, match="versions seen: 1, 2"):
        scene.judging().canary("engine", "7", "8", scene.onset_ns, scene.end_ns)


def test_an_equal_release_beside_the_old_one_is_no_incident(store: ClickHouseStore) -> None:
    scene = Scene(store, 4)
    scene.play(candidate={"share": 0.5, "slower": 1.0, "errors": 0.0})
    assert scene.replay() == []
    judged = scene.judging().canary("engine", "1", "2", scene.onset_ns, scene.end_ns)
    assert judged["verdict"] == "promote", judged["reasons"]


def test_a_budget_that_burns_is_an_incident_although_nothing_shifted(store: ClickHouseStore) -> None:
    scene = Scene(store, 5)
    scene.play()
    promise = {"name": "chat fast", "service": "gateway", "target": 0.95, "latency_ms": 300}
    (incident,) = scene.replay(**{"slo.objectives": [promise]})
    slos = scene.judging(**{"slo.objectives": [promise, {**promise, "name": "up", "latency_ms": None}]}).slos()
    fast, up = slos["slos"]
    assert (fast["firing"], up["firing"]) == (True, False)
    assert fast["requests"] == up["requests"] == pytest.approx(RATE * 60 * (BEFORE_MIN + AFTER_MIN), abs=40)
    assert fast["budget_remaining"] < 0 < up["budget_remaining"] == 1.0
    assert SLO_BUDGET.labels("chat fast")._value.get() == fast["budget_remaining"]
    assert incident.symptoms[0].rule.startswith("slo chat fast")
    assert any(evidence.kind == "slo" for evidence in incident.causes[0].evidence)


LATE = (4, 15)


class Exports:
    """Spans that arrive when their service exports them, every ten seconds; two exports come far too late."""

    def __init__(self, scene: Scene, from_ns: int) -> None:
        self.scene, self.now_ns, self.sent = scene, from_ns, 0
        parcels: dict[tuple[str, int], list[Span]] = {}
        for span in scene.spans((2400, 400), (1.0, 2.4)):
            end_s = (span.start_ms + span.duration_ms) / 1e3
            exported_s = max(-(-end_s // 10) * 10 + 2, (from_ns - scene.start_ns) / 1e9)
            parcels.setdefault((span.service, int(exported_s)), []).append(span)
        self.waiting = sorted(
            (scene.start_ns + int((at_s + (35 if number in LATE else 0)) * 1e9), number, parcel)
            for number, ((_, at_s), parcel) in enumerate(sorted(parcels.items(), key=lambda p: p[0]))
        )

    def clock(self) -> int:
        return self.now_ns

    def wait_until(self, at_ns: int) -> bool:
        self.now_ns = max(self.now_ns, at_ns)
        while self.waiting and self.waiting[0][0] <= self.now_ns:
            self.sent += 1
            self.scene.insert(self.sent, self.waiting.pop(0)[2])
        return self.now_ns <= self.scene.end_ns + MINUTE + 12 * 10**9


def test_in_the_end_watching_has_said_what_a_replay_says_although_some_came_late(store: ClickHouseStore) -> None:
    scene = Scene(store, 6, after_min=1.0)
    from_ns = scene.onset_ns - MINUTE // 2
    exports, settings = Exports(scene, from_ns), load(environ={})
    told: dict[str, Incident] = {}
    before = REVISED._value.get()
    pipeline.watch(
        store,
        lambda found, _: told.update({incident.id: incident for incident in found}),
        settings,
        clock=exports.clock,
        wait_until=exports.wait_until,
    )
    assert not exports.waiting
    assert REVISED._value.get() > before
    expected = pipeline.replay(scene.reader(settings), from_ns, scene.end_ns + MINUTE, settings)
    assert expected
    stands = [replace(incident, version=1) for incident in told.values() if incident.fired_ns is not None]
    assert bytes_of(stands) == bytes_of([replace(incident, version=1) for incident in expected])


def bytes_of(incidents: list[Incident]) -> bytes:
    bodies = sorted((incident_json(incident) for incident in incidents), key=lambda body: str(body["id"]))
    return orjson.dumps(bodies, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
