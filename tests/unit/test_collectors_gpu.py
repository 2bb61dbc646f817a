"""GPUs through NVML. The driver is simulated: this shows how we use the API, and nothing about the API itself."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from collectors.gpu import run_gpu
from collectors.gpu.nvml import NvmlReader
from collectors.metrics import MetricsRequest
from observe.errors import Misconfigured, Unavailable
from observe.settings import GpuCollectorSettings
from observe.stream import otlp
from tests.fixtures.memory import MemoryProducer
from tests.fixtures.nvml import FakeNvml, Gpu

NOW = 1_790_000_000 * 10**9
Values = dict[tuple[str, str, str], float]


def read(reader: NvmlReader, now_ns: int = NOW) -> Values:
    request = MetricsRequest("tests")
    reader.read(request, now_ns)
    return values(request.message)


def values(message: Any) -> Values:
    """By metric name, GPU, and the attribute that tells its series apart."""
    found: Values = {}
    for resource in message.resource_metrics:
        assert {a.key: a.value.string_value for a in resource.resource.attributes} == {"host.name": "node-1"}
        for metric in resource.scope_metrics[0].metrics:
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                attributes = {a.key: a.value.string_value for a in point.attributes}
                kinds = ("error.type", "hw.state", "hw.gpu.task", "hw.sensor_location")
                kind = next((attributes[key] for key in kinds if key in attributes), "")
                key = (metric.name, attributes["hw.id"], kind)
                assert key not in found
                found[key] = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
    return found


@pytest.fixture
def gpus() -> list[Gpu]:
    return [Gpu("GPU-a"), Gpu("GPU-b", busy_percent=100)]


@pytest.fixture
def nvml(gpus: list[Gpu]) -> FakeNvml:
    return FakeNvml(gpus)


@pytest.fixture
def reader(nvml: FakeNvml) -> NvmlReader:
    reader = NvmlReader(nvml, "node-1")
    reader.open()
    return reader


def test_values_have_the_units_of_the_conventions(reader: NvmlReader) -> None:
    seen = read(reader)
    assert seen["hw.gpu.utilization", "GPU-a", "general"] == 0.73
    assert seen["hw.gpu.utilization", "GPU-b", "general"] == 1.0
    assert seen["hw.gpu.utilization", "GPU-a", "encoder"] == 0.05
    assert seen["hw.gpu.memory.usage", "GPU-a", ""] == 30 * 2**30
    assert seen["hw.gpu.memory.limit", "GPU-a", ""] == 140 * 2**30
    assert seen["hw.gpu.memory.utilization", "GPU-a", ""] == pytest.approx(30 / 140)
    assert seen["hw.power", "GPU-a", ""] == 412.5
    assert seen["hw.energy", "GPU-a", ""] == 7000.0
    assert seen["hw.temperature", "GPU-a", "gpu"] == 61.0
    assert seen["hw.temperature", "GPU-a", "memory"] == 70.0
    assert seen["DCGM_FI_DEV_SM_CLOCK", "GPU-a", ""] == 1980
    assert seen["hw.errors", "GPU-a", "corrected"] == 12
    assert seen["hw.errors", "GPU-a", "remapped_rows.corrected"] == 1
    assert seen["hw.status", "GPU-a", "ok"] == 1
    assert seen["hw.status", "GPU-a", "failed"] == 0


def test_throttling_shows(reader: NvmlReader, gpus: list[Gpu]) -> None:
    gpus[0].reasons, gpus[0].thermal_violation_ns, gpus[0].sm_mhz = 0x20, 5_000_000, 700
    seen = read(reader)
    assert seen["DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "GPU-a", ""] == 0x20
    assert seen["DCGM_FI_DEV_THERMAL_VIOLATION", "GPU-a", ""] == 5_000_000
    assert seen["DCGM_FI_DEV_SM_CLOCK", "GPU-a", ""] == 700


def test_what_a_gpu_does_not_have_is_left_out_and_not_asked_again(
    reader: NvmlReader, nvml: FakeNvml, gpus: list[Gpu]
) -> None:
    gpus[0].without = {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetTotalEccErrors", "memory temperature"}
    seen = read(reader)
    assert ("hw.energy", "GPU-a", "") not in seen
    assert ("hw.errors", "GPU-a", "corrected") not in seen
    assert ("hw.temperature", "GPU-a", "memory") not in seen
    assert seen["hw.energy", "GPU-b", ""] == 7000.0
    assert seen["hw.temperature", "GPU-a", "gpu"] == 61.0
    assert ("hw.gpu.utilization", "GPU-a", "decoder") not in seen
    gpus[0].without = set()
    assert ("hw.energy", "GPU-a", "") not in read(reader)


def test_older_drivers(reader: NvmlReader, nvml: FakeNvml, gpus: list[Gpu]) -> None:
    gpus[0].without = {"nvmlDeviceGetTemperatureV", "nvmlMemory_v2"}
    seen = read(reader)
    assert seen["hw.temperature", "GPU-a", "gpu"] == 61.0
    assert seen["hw.gpu.memory.usage", "GPU-a", ""] == 30 * 2**30


def test_xid_errors_are_counted(reader: NvmlReader, nvml: FakeNvml, gpus: list[Gpu]) -> None:
    assert nvml.watched == ["GPU-a", "GPU-b"]
    assert not any(kind.startswith("xid") for _, _, kind in read(reader))
    nvml.events.extend([(gpus[0], 79), (gpus[0], 79), (gpus[1], 13)])
    seen = read(reader, NOW + 10)
    assert {key[1:]: value for key, value in seen.items() if key[2].startswith("xid")} == {
        ("GPU-a", "xid.79"): 2,
        ("GPU-b", "xid.13"): 1,
    }
    assert read(reader)["hw.errors", "GPU-a", "xid.79"] == 2


def test_a_lost_gpu_has_failed_and_the_others_go_on(reader: NvmlReader, gpus: list[Gpu]) -> None:
    gpus[0].lost = True
    seen = read(reader)
    assert {key for key in seen if key[1] == "GPU-a"} == {
        ("hw.status", "GPU-a", s) for s in ("ok", "degraded", "failed")
    }
    assert seen["hw.status", "GPU-a", "failed"] == 1
    assert seen["hw.status", "GPU-b", "ok"] == 1
    gpus[0].lost = False
    assert read(reader)["hw.status", "GPU-a", "ok"] == 1


@pytest.mark.parametrize(
    ("remapped", "state"), [((0, 1, 1, 0), "degraded"), ((0, 8, 1, 1), "failed"), ((3, 0, 0, 0), "ok")]
)
def test_memory_rows_decide_the_state(
    reader: NvmlReader, gpus: list[Gpu], remapped: tuple[int, int, int, int], state: str
) -> None:
    gpus[0].remapped = remapped
    seen = read(reader)
    assert [kind for (name, gpu, kind), on in seen.items() if name == "hw.status" and gpu == "GPU-a" and on] == [state]


def test_a_driver_that_is_reloaded_is_found_again(reader: NvmlReader, nvml: FakeNvml, gpus: list[Gpu]) -> None:
    nvml.events.append((gpus[0], 79))
    read(reader)
    nvml.loaded = False
    with pytest.raises(Unavailable, match="NVML"):
        read(reader)
    with pytest.raises(Unavailable, match="Driver Not Loaded"):
        read(reader)
    nvml.loaded, nvml.initialized = True, 0
    assert read(reader)["hw.errors", "GPU-a", "xid.79"] == 1
    reader.close()
    assert nvml.initialized == 0


def test_points_go_to_the_stream(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=b,host.name=node-1")
    producer = MemoryProducer()
    stop = threading.Event()
    send = producer.send

    def send_and_stop(*arguments: Any, **named: Any) -> Any:
        stop.set()
        return send(*arguments, **named)

    monkeypatch.setattr(producer, "send", send_and_stop)
    run_gpu(producer, GpuCollectorSettings(interval_s=0.01), stop, nvml=nvml)
    (record,) = producer.records
    assert producer.items("metrics") > 40
    assert values(otlp.decode("metrics", record.value))["hw.power", "GPU-b", ""] == 412.5
    assert nvml.initialized == 0


def test_no_driver(nvml: FakeNvml, caplog: pytest.LogCaptureFixture) -> None:
    nvml.loaded = False
    producer = MemoryProducer()
    with caplog.at_level(logging.INFO):
        run_gpu(producer, GpuCollectorSettings(), threading.Event(), nvml=nvml)
    assert [record.getMessage() for record in caplog.records] == ["no GPU metrics of this host: Driver Not Loaded"]
    run_gpu(producer, GpuCollectorSettings(enabled=False), threading.Event(), nvml=nvml)
    with pytest.raises(Misconfigured, match=r"collect\.gpu\.enabled = true"):
        run_gpu(producer, GpuCollectorSettings(enabled=True), threading.Event(), nvml=nvml)
    assert producer.records == []


def test_without_the_library_of_the_driver() -> None:
    run_gpu(MemoryProducer(), GpuCollectorSettings(), threading.Event())  # the real pynvml; this machine has no GPU
