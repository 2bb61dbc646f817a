"""The demo's parts: GPUs, chance, faults, and the judge."""

from __future__ import annotations

import random
from itertools import islice, pairwise
from typing import Any

import pytest

from observe.demo.faults import FAULTS, GPU, expected, is_right
from observe.demo.fleet import environment
from observe.demo.gpu import SM_CLOCK_MHZ, Gpu, GpuPool
from observe.demo.judge import Judge, Patience
from observe.demo.narrator import lines
from observe.demo.noise import OUTPUT_TOKENS, PROMPT_TOKENS, Latency, arrivals
from observe.demo.service import parse, peers
from observe.demo.topology import INSTANCES, SERVICES
from observe.errors import Misconfigured
from observe.wire import rfc3339

SECOND_NS = 1_000_000_000
T0 = 1_700_000_000 * SECOND_NS


def pool() -> GpuPool:
    return GpuPool([Gpu(f"GPU-{i}", random.Random(i)) for i in range(2)])


def test_a_throttled_gpu_shows_it_and_sets_the_pace():
    gpus = pool()
    gpus.read(0.0)
    gpus.throttle(0, 0.33)
    for second in range(1, 31):
        gpus.worked(0.8)
        slow, other = gpus.read(float(second))
    assert gpus.pace == 0.33
    assert slow.sm_clock_mhz == pytest.approx(SM_CLOCK_MHZ * 0.33, rel=0.05)
    assert other.sm_clock_mhz == pytest.approx(SM_CLOCK_MHZ, rel=0.05)
    assert (slow.throttle_reasons & 64, other.throttle_reasons) == (64, 0)
    assert slow.temperature_c > other.temperature_c + 15
    assert slow.power_w < other.power_w
    assert slow.utilization == pytest.approx(0.8, abs=0.01)


def test_reading_twice_at_once_gives_the_same():
    gpus = pool()
    assert gpus.read(5.0) is gpus.read(5.1)


def test_arrivals_are_in_order_at_the_asked_rate_and_more_uneven_than_chance():
    times = list(islice(arrivals(8.0, random.Random(3)), 16_000))
    assert all(a <= b for a, b in pairwise(times))
    assert len(times) / times[-1] == pytest.approx(8.0, rel=0.05)
    counts = [0] * (int(times[-1]) // 10 + 1)
    for at_s in times:
        counts[int(at_s) // 10] += 1
    mean = sum(counts) / len(counts)
    variance = sum((c - mean) ** 2 for c in counts) / len(counts)
    assert variance > 2 * mean  # a Poisson process has 1


def test_token_counts_follow_their_quantiles():
    rng = random.Random(5)
    for table in (PROMPT_TOKENS, OUTPUT_TOKENS):
        drawn = sorted(table.sample(rng) for _ in range(20_001))
        assert drawn[0] >= table.at(0)
        assert drawn[-1] <= table.at(1)
        for level in (0.1, 0.5, 0.9):
            assert drawn[int(level * 20_000)] == pytest.approx(table.at(level), rel=0.05)


def test_service_times_have_the_median_that_is_asked_for():
    latency = Latency(20.0, random.Random(9))
    drawn = sorted(latency.sample_s(now, factor=2.0) for now in range(4001))
    assert drawn[2000] == pytest.approx(0.040, rel=0.06)


def test_every_fault_is_about_something_that_exists():
    instances = {i.instance: i.service for i in INSTANCES}
    for name, fault in FAULTS.items():
        assert (expected(fault) is None) == (name == "none")
        if fault.service:
            assert instances[fault.instance] == fault.service
            assert bool(fault.release) != bool(fault.ailment)


def test_a_fault_needs_its_resource_and_its_service():
    gpu = FAULTS["gpu-throttle"]
    assert is_right(gpu, {"service": "llm-engine", "kind": "gpu", "resource": GPU})
    assert not is_right(gpu, {"service": "llm-engine", "kind": "gpu", "resource": "GPU-other"})
    assert not is_right(gpu, {"service": "gateway", "kind": "gpu", "resource": GPU})
    assert not is_right(gpu, None)
    assert is_right(FAULTS["errors"], {"service": "intent", "kind": "instance", "resource": "intent-1"})


def incident(
    opened_s: float, fired_s: float | None, cause: dict[str, Any] | None = None, name: str = "one"
) -> dict[str, Any]:
    return {
        "id": name,
        "version": 1,
        "state": "firing" if fired_s is not None else "pending",
        "severity": "critical",
        "title": "gateway is slow",
        "opened_at": rfc3339(T0 + int(opened_s * SECOND_NS)),
        "fired_at": None if fired_s is None else rfc3339(T0 + int(fired_s * SECOND_NS)),
        "causes": [cause] if cause else [],
    }


def cause(**changes: Any) -> dict[str, Any]:
    return {
        "service": "vector-db", "kind": "database", "resource": "", "score": 0.9, "share": 0.8,
        "path": ["gateway", "retriever", "vector-db"], "evidence": [{"kind": "self_time", "text": "it is slow"}],
    } | changes  # fmt: skip


def at(seconds: float) -> int:
    return T0 + int(seconds * SECOND_NS)


@pytest.fixture
def judge() -> Judge:
    judge = Judge("slow-database", FAULTS["slow-database"], Patience(80, 20, 65), begun_ns=T0)
    judge.injected(at(100))
    return judge


def test_the_last_first_cause_counts(judge: Judge):
    judge.see([incident(120, 130, cause(service="gateway"))])
    assert not judge.done(at(140))
    judge.see([incident(120, 130, cause())])
    assert judge.done(at(151))
    result = judge.result(at(151))
    assert (result.ok, result.fault_to_firing_s, result.seconds) == (True, 30.0, 151.0)


def test_a_wrong_cause_is_wrong(judge: Judge):
    judge.see([incident(120, 130, cause(service="gateway"))])
    result = judge.result(at(160))
    assert not result.ok
    assert "gateway" in result.because


def test_nothing_fires_in_time(judge: Judge):
    judge.see([incident(120, None)])
    assert not judge.done(at(179))
    assert judge.done(at(181))
    assert not judge.result(at(181)).ok


def test_what_fired_before_the_fault_is_not_the_answer(judge: Judge):
    judge.see([incident(50, 60, cause(), "early")])
    assert not judge.done(at(130))
    assert [i["id"] for i in judge.result(at(181)).before_fault] == ["early"]
    assert not judge.result(at(181)).ok


def test_incidents_of_an_earlier_run_are_none_of_ours(judge: Judge):
    judge.see([incident(-300, 130, cause())])
    assert judge.result(at(181)).incident is None


def test_without_a_fault_any_incident_is_wrong():
    judge = Judge("none", FAULTS["none"], Patience(80, 20, 65), begun_ns=T0)
    judge.injected(at(100))
    assert not judge.done(at(164))
    assert judge.done(at(165))
    assert judge.result(at(165)).ok
    judge.see([incident(150, None)])
    assert not judge.result(at(165)).ok


def test_the_narrator_says_cause_path_and_evidence():
    told = "\n".join(lines(incident(120, 130, cause()) | {
        "onset_at": rfc3339(T0), "last_seen_at": rfc3339(T0), "resolved_at": None, "symptoms": [], "ruled_out": [],
        "impact": {"services": [], "requests_affected": 0},
        "causes": [cause() | {"rank": 1, "exemplar_trace_ids": []}],
    }))  # fmt: skip
    assert "vector-db database" in told
    assert "gateway → retriever → vector-db" in told
    assert "it is slow" in told


def test_services_are_found_by_name_unless_told_otherwise():
    options = parse(["gateway"], {"DEMO_PORT": "81", "DEMO_PEERS": "intent=http://a:1"})
    assert options.port == 81
    assert options.version == SERVICES["gateway"].version
    assert options.peers["intent"] == ("http://a:1",)
    assert options.peers["llm-engine"] == ("http://llm-engine:8000",)
    with pytest.raises(Misconfigured, match="nonsense"):
        peers("gateway", "nonsense")


def test_a_persons_own_variables_do_not_name_the_fleet():
    assert environment({"OTEL_SERVICE_NAME": "mine", "DEMO_PORT": "1", "PATH": "/bin"}, "http://x:1") == {
        "PATH": "/bin",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1",
    }
