"""Recorded traces as OTLP through the whole pipeline: `observe bench diagnose --data DIR --pipeline`."""

from __future__ import annotations

import orjson
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.bench import diagnose, public, whole
from observe.bench.span_requests import BASELINE_S, CLIENT, INTERNAL, SERVER, kinded, requests, timeline
from observe.cli import cli
from observe.diagnose.offline.case import SPAN_COLUMNS
from observe.types import Cause, CauseKind, Incident, Severity, State
from tests.unit.public_parts import INJECT_S, metrics, spans

END_NS = 1_790_000_000 * 10**9


def recorded(*rows):
    """(span, parent, service, start, duration) of one trace."""
    return pl.DataFrame(
        [(b"t", span, parent, service, f"op {service}", start, took) for span, parent, service, start, took in rows],
        schema=SPAN_COLUMNS,
        orient="row",
    )


def incident(*causes):
    return Incident("i", 1, State.FIRING, Severity.WARNING, "t", 0, 0, 0, None, (), causes, fired_ns=1)


def test_kinds_follow_from_who_called_whom():
    found = kinded(
        recorded(
            (b"a", b"", "front", 0, 100),
            (b"b", b"a", "front", 10, 80),
            (b"c", b"b", "cart", 20, 60),
            (b"d", b"c", "cart", 30, 10),
        )
    )
    assert found["kind"].to_list() == [SERVER, CLIENT, SERVER, INTERNAL]
    assert found["parent"].to_list() == [0, *found["span"].to_list()[:3]]


def test_a_call_of_which_only_the_callee_was_recorded_gets_a_client_span():
    found = kinded(recorded((b"a", b"", "front", 0, 100), (b"c", b"a", "cart", 20, 60)))
    front, cart, put_in = found.rows(named=True)
    assert (front["kind"], cart["kind"], put_in["kind"]) == (SERVER, SERVER, CLIENT)
    assert (put_in["service"], put_in["parent"], cart["parent"]) == ("front", front["span"], put_in["span"])
    assert (put_in["start_us"], put_in["duration_us"]) == (20, 60)


def test_a_lost_parent_makes_no_root():
    (row,) = kinded(recorded((b"c", b"gone", "cart", 20, 60))).rows(named=True)
    assert row["kind"] == SERVER
    assert row["parent"] not in (0, row["span"])


def test_what_is_put_in_and_lost_fits_into_requests():
    given = kinded(recorded((b"a", b"gone", "front", 0, 100), (b"c", b"a", "cart", 20, 60)))
    sent = [ExportTraceServiceRequest.FromString(body) for body, _ in requests(given)]
    by_service = {
        under.resource.attributes[0].value.string_value: list(under.scope_spans[0].spans)
        for request in sent
        for under in request.resource_spans
    }
    assert sum(count for _, count in requests(given)) == 3
    (cart,) = by_service["cart"]
    front, put_in = by_service["front"]
    assert cart.parent_span_id == put_in.span_id
    assert put_in.parent_span_id == front.span_id
    assert front.parent_span_id not in (b"", front.span_id)
    assert {len(s.trace_id) for s in (cart, front, put_in)} == {16}
    assert cart.end_time_unix_nano - cart.start_time_unix_nano == 60_000
    assert cart.status.code == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(20, 80), st.integers(20, 80))
def test_fault_free_spans_come_before_those_of_the_fault_and_as_often(before, after):
    normal, faulty = spans(1, requests=before), spans(2, requests=after)
    moved, fault_ns, last_ns = timeline(normal, faulty, END_NS)
    starts = moved.group_by("trace").agg(pl.col("start_us").min(), pl.col("span").n_unique(), rows=pl.len())
    assert (starts["span"] == starts["rows"]).all()
    early = starts.filter(pl.col("start_us") * 1000 < fault_ns)
    late = starts.filter(pl.col("start_us") * 1000 >= fault_ns)
    assert late.height == after
    assert END_NS - 10 * 10**9 < last_ns <= END_NS
    reach_s = (fault_ns / 1000 - early["start_us"].min()) / 1e6
    assert BASELINE_S - 1 <= reach_s <= BASELINE_S + before + 1
    assert early.height == pytest.approx(reach_s, rel=0.1)  # both were recorded at one request a second


def test_more_fault_free_traces_than_the_fault_s_are_thinned_by_whole_traces():
    normal = spans(1, requests=300).with_columns(pl.col("start_us") // 5)
    moved, fault_ns, _ = timeline(normal, spans(2, requests=60), END_NS)
    early = moved.filter(pl.col("start_us") * 1000 < fault_ns)
    assert early["trace"].n_unique() == pytest.approx(BASELINE_S, rel=0.1)  # one a second instead of five
    whole_traces = early.group_by("trace").len()["len"].unique().to_list()
    assert whole_traces == [kinded(normal).filter(pl.col("trace") == 1).height]


def test_unknown_names_no_service():
    causes = [
        Cause(1, CauseKind.UNKNOWN, "front", "", 0.5, 0.0, ()),
        Cause(3, CauseKind.SERVICE, "pay", "", 0.2, 0.1, ()),
        Cause(2, CauseKind.DATABASE, "", "orders", 0.4, 0.3, ()),
    ]
    again = Cause(1, CauseKind.SERVICE, "pay", "", 0.9, 1.0, ())
    found = whole.named([incident(*causes), incident(again)])
    assert (found.services, found.score, found.metric) == (["orders", "pay"], [0.4, 0.2], [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A slow service, and a case without spans."""
    folder = tmp_path_factory.mktemp("set")
    truth = {"service": "cart", "metrics": ["cpu"]}
    cases = [{"case": name, "inject_at_s": 0, "fault": "delay", "truth": truth} for name in ("slow", "spanless")]
    (folder / "cases.json").write_bytes(orjson.dumps(cases))
    moved = {"slow": {}, "spanless": {("pay", "cpu"): 6.0}}
    parts = [metrics(1, m).with_columns(pl.col("time_s") - INJECT_S, case=pl.lit(name)) for name, m in moved.items()]
    pl.concat(parts).write_parquet(folder / "metrics.parquet")

    def busy(seed, **fault):  # three requests a second
        return spans(seed, requests=180, **fault).with_columns(
            start_us=pl.col("start_us") - pl.col("start_us").min().over("trace_id") * 2 // 3
        )

    parts = {"*": busy(1), "slow": busy(2, slow={"cart": 20.0})}
    pl.concat(
        [
            part.with_columns(case=pl.lit(name), phase=pl.lit("normal" if name == "*" else "abnormal"))
            for name, part in parts.items()
        ]
    ).write_parquet(folder / "spans.parquet")
    return folder


def test_incidents_of_recorded_traces_are_scored(folder):
    ran = CliRunner().invoke(cli, ["bench", "diagnose", "--data", str(folder), "--pipeline", "--json"])
    assert ran.exit_code == 0, ran.output
    body = orjson.loads(ran.stdout)
    assert (body["mode"], body["without_spans"]) == ("pipeline", 1)
    slow, spanless = body["cases"]
    assert (slow["ranked"][0], slow["place"], slow["before_the_fault"]) == ("cart", 1, 0)
    assert 0 < slow["fired_after_s"] <= 80
    assert slow["seconds"] > slow["look_seconds"] > 0
    assert slow["asked"][0] == "cart"
    assert (spanless["spans"], spanless["asked"][0]) == (0, "pay")
    assert [body["scores"][by]["overall"]["ac@1"]["value"] for by in ("observe", "asked")] == [0.5, 0.5]
    assert body["metrics"] == {"cases": 0, "right": 0.0}
    assert body["resources"]["overall"] == {"cases": 0}


def test_no_incident_is_a_miss(folder):
    given = public.cases(folder)
    result = diagnose.scored("set", given, ranker=lambda case: (whole.named([]), {"incidents": 0}))
    assert [(one["ranked"], one["place"], one["incidents"]) for one in result["cases"]] == [([], None, 0)] * 2
    assert result["scores"]["observe"]["overall"]["avg@5"]["value"] == 0
    assert "delay" in diagnose.text(result)


def test_cases_are_chosen_by_pattern(folder):
    ran = CliRunner().invoke(cli, ["bench", "diagnose", "--data", str(folder), "--case", "s*", "--json"])
    assert [one["case"] for one in orjson.loads(ran.stdout)["cases"]] == ["slow", "spanless"]
    none = CliRunner().invoke(cli, ["bench", "diagnose", "--data", str(folder), "--case", "nothing", "--pipeline"])
    assert none.exit_code != 0
    assert CliRunner().invoke(cli, ["bench", "diagnose", "--pipeline"]).exit_code == 2
