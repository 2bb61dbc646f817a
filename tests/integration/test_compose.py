"""docker-compose.yml without containers: every command of ours runs as written there, on a real broker and server."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from observe.client import Client
from observe.settings import load
from tests.fixtures.kafka import KafkaBroker, broker_or_skip
from tests.fixtures.ports import free_ports
from tests.fixtures.processes import PATIENCE_S, Command, wait_for

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("observe:")}
ONCE = ("migrate",)


def test_it_parses_and_names_what_it_uses():
    for name, service in SERVICES.items():
        assert ":" in service["image"], f"{name}: the image is not pinned"
        assert not service["image"].endswith(":latest"), name
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"], name
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"], name


def test_every_service_that_others_wait_for_says_when_it_is_ready():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for {other}"


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_is_a_known_setting(name):
    environ = {key: str(value) for key, value in OURS[name].get("environment", {}).items()}
    load(environ=environ)  # raises Misconfigured for a variable of ours that it does not know
    assert all(re.match(r"(OBSERVE|DEMO|OTEL)_", key) for key in environ)


@pytest.fixture
def broker(tmp_path):
    """One of its own: the topics of the shared broker have the sizes of other tests."""
    broker_or_skip()
    own = KafkaBroker(tmp_path / "kafka").start()
    yield own
    own.stop()


@pytest.mark.kafka
@pytest.mark.clickhouse
def test_every_command_runs_as_written(tmp_path, broker, clickhouse_database):
    ports = iter(free_ports(40))
    addresses: dict[str, str] = {}

    def local(text: str) -> str:
        """The same text with container addresses turned into addresses of this machine."""
        text = text.replace("kafka://kafka:9092", f"kafka://{broker.bootstrap}")
        text = re.sub(r"clickhouse://[^ ]+", clickhouse_database, text)
        return re.sub(
            r"([a-z0-9.-]+):(4317|4318|8080|8501|8000)\b",
            lambda m: addresses.setdefault(f"{m[1]}:{m[2]}", f"127.0.0.1:{next(ports)}"),
            text,
        )

    running: dict[str, Command] = {}
    # Inside a container every service listens on all interfaces; here each one's own address must be the one asked.
    for name in OURS:
        for port in ("4317", "4318", "8080", "8501", "8000"):
            addresses[f"{name}:{port}"] = f"127.0.0.1:{next(ports)}" if name_listens(name, port) else ""
    addresses = {key: value for key, value in addresses.items() if value}

    def start(name: str) -> Command:
        service = OURS[name]
        own = {f"0.0.0.0:{key.split(':')[1]}": value for key, value in addresses.items() if key.split(":")[0] == name}
        environ = {"OTEL_SDK_DISABLED": "false"}
        for key, value in service.get("environment", {}).items():
            environ[key] = local(own.get(str(value), str(value)))
        command = [local(part) for part in service["command"]]
        if command[:3] == ["python", "-m", "observe.demo.service"]:
            environ["DEMO_PORT"] = addresses[f"{name}:8000"].split(":")[1]
            command[command.index("0.0.0.0")] = "127.0.0.1"
            environ["DEMO_PEERS"] = ";".join(filter(None, (environ.get("DEMO_PEERS", ""), peers(addresses))))
        module = command[2:] if command[0] == "python" else command
        assert command[0] in ("observe", "python"), f"{name}: {sys.executable}"
        return Command(tmp_path, *module, environ=environ)

    try:
        assert start("migrate").process.wait(PATIENCE_S) == 0
        for name in (n for n in OURS if n not in ONCE):
            running[name] = start(name)
        with Client(f"http://{addresses['api:8080']}") as client:
            wait_for("the API", client.health)
            wait_for(
                "spans of every service of the fleet",
                lambda: {s["service"] for s in client.services()} >= {"gateway", "intent", "retriever", "vector-db"},
            )
            assert client.audit()["dead_letters"] == 0
        wait_for("the dashboard", lambda: answers(f"http://{addresses['dashboard:8501']}/_stcore/health"))
        dead = {name: command.tail() for name, command in running.items() if command.process.poll() is not None}
        assert dead == {}
    finally:
        for command in reversed(running.values()):
            command.process.terminate()
        codes = {name: command.stop() for name, command in running.items() if command.process.poll() is None}
    assert [name for name, code in codes.items() if code not in (0, -15)] == []


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


def name_listens(name: str, port: str) -> bool:
    listens = {"collector": ("4317", "4318"), "api": ("8080",), "dashboard": ("8501",)}
    fleet = "observe.demo.service" in OURS[name]["command"]
    return port in listens.get(name, ()) or (fleet and port == "8000")


def peers(addresses: dict[str, str]) -> str:
    """Where the fleet's services are, for those that rely on container names."""
    return ";".join(f"{name}=http://{addresses[f'{name}:8000']}" for name in ("intent", "vector-db", "reranker"))
