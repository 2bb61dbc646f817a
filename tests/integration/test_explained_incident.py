"""A real incident, watched from telemetry to explanation: every sentence's question gives its number again."""

from __future__ import annotations

import io
import random
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import orjson
import pytest
from click.testing import CliRunner

from observe import pipeline
from observe.api import create_app, serve
from observe.cli import cli
from observe.looks import unpack
from observe.settings import load
from observe.store import ClickHouseStore
from observe.store.read import Reader
from observe.types import WINDOW_NS, Incident
from observe.verdict import again
from observe.wire import incident_json
from tests.fixtures.records import CLIENT, SERVER, Span, batch
from tests.fixtures.records import request as request_of

SECOND = 10**9
CALM_S, SICK_S = 240, 90
EVERY_MS = 250


def traces(seed: int = 5) -> list[Span]:
    """gateway calls llm-engine, on two instances. From CALM_S on, acme's requests take six times as long there."""
    rng, found = random.Random(seed), list[Span]()
    for number, at_ms in enumerate(range(0, (CALM_S + SICK_S) * 1000, EVERY_MS)):
        tenant = "acme" if rng.random() < 0.3 else rng.choice(["blue", "coral", "dune"])
        slow = tenant == "acme" and at_ms >= CALM_S * 1000
        took = 60 * rng.lognormvariate(0, 0.15) * (6 if slow else 1)
        instance = f"llm-engine-{number % 2}"
        asked = {
            "tenant": tenant,
            "request.id": f"r{number}",
            "user.email": f"{tenant}@example.org",
            "http.response.status_code": 200,
        }
        root = Span("gateway", "POST /chat", at_ms, took + 9, attributes=asked, resource={"host.name": "edge-1"})
        call = Span("gateway", "chat", at_ms + 3, took + 4, root, CLIENT, attributes={"server.address": "llm-engine"})
        resource = {"service.instance.id": instance, "host.name": "gpu-1", "service.version": "1.4.0"}
        engine = Span("llm-engine", "chat", at_ms + 5, took, call, SERVER, resource=resource)
        found += [root, call, engine]
    return found


@dataclass
class Site:
    http: httpx.Client
    incident: Incident
    store: ClickHouseStore


@pytest.fixture(scope="module", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def site(request, opened_store):
    with opened_store(request.param) as store:
        yield from served(store)


def served(store: ClickHouseStore) -> Iterator[Site]:
    base_ns = (time.time_ns() - 900 * SECOND) // WINDOW_NS * WINDOW_NS
    spans = traces()
    for number in range(0, len(spans), 3000):
        body = request_of(spans[number : number + 3000], base_ns)
        store.insert(batch("otlp_spans", 0, number, body), min(3000, len(spans) - number))
    incidents = watched(store, base_ns)
    app = create_app(Reader(store), store, audit=dict, replay=lambda a, b: {"incidents": []})
    server = serve(app, "127.0.0.1:0")
    with httpx.Client(base_url=f"http://{server.address}", timeout=60) as http:
        yield Site(http, incidents, store)
    server.stop()


def watched(store: ClickHouseStore, base_ns: int) -> Incident:
    """What the watcher makes of it, with the data's own time as the clock."""
    settings = load(environ={})
    now_ns = base_ns + (CALM_S + 20) * SECOND
    end_ns = base_ns + (CALM_S + SICK_S) * SECOND
    told: list[Incident] = []

    def wait_until(at_ns: int) -> bool:
        nonlocal now_ns
        now_ns = at_ns
        return at_ns < end_ns

    pipeline.watch(store, lambda seen, _: told.extend(seen), settings, clock=lambda: now_ns, wait_until=wait_until)
    (incident,) = store.incidents(state="firing")
    assert incident.id in {i.id for i in told}
    return incident


@pytest.fixture(scope="module")
def explained(site) -> dict[str, Any]:
    return site.http.get(f"/api/v1/incidents/{site.incident.id}/explain").raise_for_status().json()


def test_the_cause_is_named_and_narrowed_to_the_tenant(explained):
    first = explained["causes"][0]
    assert (first["service"], first["path"]) == ("llm-engine", ["gateway", "llm-engine"])
    assert (first["kind"], first["resource"]) == ("service", "tenant=acme")
    assert "llm-engine, tenant=acme" in explained["title"]
    said = [e for e in first["evidence"] if e["kind"] == "attribute"]
    assert len(said) == 1
    assert "have tenant=acme" in said[0]["text"]
    assert "example.org" not in str(explained)
    numbers = said[0]["numbers"]
    assert numbers["bad_with"] >= 0.9 * numbers["bad"] >= 20
    assert numbers["others_with"] <= 0.05 * numbers["others"]


def test_every_sentence_gives_its_numbers_again(site, explained):
    sentences = [*(e for c in explained["causes"] for e in c["evidence"]), *explained["ruled_out"]]
    asked = [s for s in sentences if s["query"]]
    assert {"self_time", "attribute"} <= {s["kind"] for s in asked if "kind" in s}
    for sentence in asked:
        answer = site.http.get(sentence["query"]).raise_for_status().json()["numbers"]
        assert sentence["numbers"], sentence
        for name, value in sentence["numbers"].items():
            assert answer[name] == pytest.approx(value, rel=1e-4, abs=1e-9), (sentence, answer)
            assert said(value, sentence.get("text") or sentence["because"]), sentence
    replayed = site.http.get(f"/api/v1/incidents/{explained['id']}/replay").raise_for_status().json()["recomputed"]
    again = [*(e for c in replayed["causes"] for e in c["evidence"]), *replayed["ruled_out"]]
    assert [s["numbers"] for s in again] == [s["numbers"] for s in sentences]


def said(value: float, text: str) -> bool:
    """Whether the text has the value, rounded, as itself, in ms or s, or in per cent."""
    found = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text.replace(",", ""))]
    return any(
        abs(n - v) <= 0.051 * max(1.0, abs(v)) for n in found for v in (value, value / 1000, value * 100, -value)
    )


def test_a_diagnosis_is_made_again_byte_for_byte(site, explained):
    answer = site.http.get(f"/api/v1/incidents/{explained['id']}/replay").raise_for_status().json()
    assert answer["same"] is True
    assert answer["sha256_stored"] == answer["sha256_recomputed"]
    assert answer["looked_at"] == explained["looked_at"]
    assert plain(answer["recomputed"]["causes"]) == plain(explained["causes"])


def plain(causes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Causes without the SQL that the API adds."""
    return [c | {"evidence": [{k: v for k, v in e.items() if k != "sql"} for e in c["evidence"]]} for c in causes]


def test_every_sentence_has_sql_that_runs_as_it_is(site, explained):
    site.store.settle(time.time_ns())
    sentences = [*(e for c in explained["causes"] for e in c["evidence"]), *explained["ruled_out"]]
    asked = [s for s in sentences if s["query"]]
    assert asked
    for sentence in asked:
        found, *everything = site.store.query(sentence["sql"]).to_dicts()
        if everything:  # of an attribute: the requests that have the value, and all
            (others,) = everything
            found = {
                "bad_with": found["bad"],
                "bad": others["bad"],
                "others_with": found["good"],
                "others": others["good"],
            }
        for name, value in sentence["numbers"].items():
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-9), (sentence, found)


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_the_sql_is_folded(site, explained, form):
    page = site.http.get(f"/api/v1/incidents/{explained['id']}/explain", params={"format": form}).text
    shown, folded = page.split("<details>")
    assert "FROM self_windows" in folded
    assert "SELECT" not in shown


def test_the_inputs_open_with_common_tools_and_hold_no_secret(site, explained):
    body = site.http.get(f"/api/v1/incidents/{explained['id']}/inputs").raise_for_status()
    assert body.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(body.content)) as archive:
        names = set(archive.namelist())
        assert {"look.json", "known.json", "windows.parquet", "selfs.parquet", "edges.parquet"} <= names
        assert b"webhooks" not in archive.read("look.json")


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_the_explanation_is_short_and_says_all(site, explained, form):
    page = site.http.get(f"/api/v1/incidents/{explained['id']}/explain", params={"format": form}).text
    for part in ("Cause: llm-engine", "sure", "tenant", "What changed", "Symptoms", "Who suffers", "example trace"):
        assert part in page
    assert "/api/v1/compare?of=self_time_ms" in page
    assert len(page.split("<details>")[0]) < 12_000


def test_questions_that_make_no_sense_are_refused(site):
    ask = site.http.get
    when = {"before": "2026-01-01T00:00:00Z/2026-01-01T00:10:00Z", "after": "2026-01-01T00:10:00Z/2026-01-01T00:20:00Z"}
    assert ask("/api/v1/compare", params={"of": "beauty", **when}).status_code == 400
    assert ask("/api/v1/compare", params={"of": "duration_ms", "before": "now", "after": "then"}).status_code == 400
    assert ask("/api/v1/compare", params={"of": "duration_ms", "service": "nobody", **when}).json()["numbers"] == {
        "before": 0.0,
        "after": 0.0,
        "requests_before": 0.0,
        "requests_after": 0.0,
    }
    assert ask("/api/v1/incidents/nobody/replay").status_code == 404


def test_the_command_explains_replays_and_saves(site, explained, tmp_path):
    def observe(*words: str):
        return CliRunner().invoke(cli, ["explain", explained["id"], "--api", str(site.http.base_url), *words])

    told = observe()
    assert told.exit_code == 0
    assert f"{site.http.base_url}/api/v1/compare?of=self_time_ms" in told.output
    assert "have tenant=acme" in told.output
    assert orjson.loads(observe("--format", "json").output)["id"] == explained["id"]
    saved = observe("--inputs", str(tmp_path / "inputs.zip"))
    assert saved.exit_code == 0
    look = unpack((tmp_path / "inputs.zip").read_bytes())
    assert incident_json(next(i for i in again(look) if i.id == explained["id"]))["causes"] == plain(
        explained["causes"]
    )


def test_changed_inputs_are_noticed(site, explained):
    at_ns, _ = site.store.diagnosed(explained["id"])
    other = replace(site.incident, title="somebody changed this")
    site.store.save_look(at_ns + 1, site.store.inputs(at_ns), [other])
    assert site.http.get(f"/api/v1/incidents/{explained['id']}/replay").json()["same"] is False
