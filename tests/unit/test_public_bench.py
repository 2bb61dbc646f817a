"""The folder format and the scores of `observe bench diagnose`."""

from __future__ import annotations

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from observe.bench import diagnose, public
from observe.cli import cli
from observe.errors import BadRecord, Misconfigured
from tests.unit.public_parts import CALLS, INJECT_S, graph, metrics, spans


@pytest.fixture
def folder(tmp_path):
    """Two cases with metrics, of which the first has spans as well."""
    cases = [
        {"case": "one", "system": "shop", "step_s": 10, "inject_at_s": INJECT_S, "fault": "cpu", "symptom": None,
         "truth": {"service": "cart", "metrics": ["cpu"]}, "has_spans": True, "notes": ""},
        {"case": "two", "system": "shop", "step_s": 10, "inject_at_s": INJECT_S, "fault": "delay",
         "symptom": {"service": "front", "metric": "latency"}, "truth": {"service": "nobody", "metrics": []}},
    ]  # fmt: skip
    (tmp_path / "cases.json").write_bytes(orjson.dumps(cases))
    pl.concat(
        [
            metrics(1, {("cart", "cpu"): 3.0}).with_columns(case=pl.lit("one")),
            metrics(2, {("pay", "cpu"): 3.0}).with_columns(case=pl.lit("two")),
        ]
    ).write_parquet(tmp_path / "metrics.parquet")
    pl.concat(
        [
            spans(1, requests=20).with_columns(case=pl.lit("*"), phase=pl.lit("normal")),
            spans(2, requests=20, slow={"cart": 4.0}).with_columns(case=pl.lit("one"), phase=pl.lit("abnormal")),
        ]
    ).with_columns(pl.col("case", "phase", "service", "operation").cast(pl.Categorical)).write_parquet(
        tmp_path / "spans.parquet"
    )
    graph().with_columns(system=pl.lit("shop")).select("system", "caller", "callee").write_csv(tmp_path / "graph.csv")
    return tmp_path


def test_cases_carry_their_own_rows_and_the_common_spans(folder):
    one, two = public.cases(folder)
    assert (one.name, one.truth, one.metrics, one.case.symptom_service) == ("one", "cart", ("cpu",), "")
    assert one.case.spans_before.height > 0
    assert one.case.spans_after.height > 0
    assert two.case.spans_after.height == 0
    assert two.case.symptom_metric == "latency"
    assert two.case.graph.rows() == graph().rows()
    assert one.case.metrics.height == two.case.metrics.height == 120 * 3 * len(CALLS)


def test_spans_and_graph_may_be_missing(folder):
    (folder / "spans.parquet").unlink()
    (folder / "graph.csv").unlink()
    assert [len(c.case.graph) + len(c.case.spans_before) for c in public.cases(folder)] == [0, 0]


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match=r"cases\.json"):
        list(public.cases(tmp_path))


def test_a_case_without_a_time_is_refused(folder):
    (folder / "cases.json").write_bytes(orjson.dumps([{"case": "one"}]))
    with pytest.raises(BadRecord, match="inject_at_s"):
        list(public.cases(folder))


def test_scores_count_a_truth_that_is_nowhere_as_a_miss(folder):
    result = diagnose.diagnose(folder)
    first, second = result["cases"]
    assert (first["ranked"][0], first["place"]) == ("cart", 1)
    assert (second["ranked"][0], second["place"]) == ("pay", None)
    assert set(first["ranked"]) == set(CALLS)
    assert (first["metric"], first["metric_right"], second["metric_right"]) == ("cpu", True, None)
    assert result["metrics"] == {"cases": 1, "right": 1.0}
    overall = result["scores"]["observe"]["overall"]
    assert overall["cases"] == 2
    assert overall["ac@1"]["value"] == overall["avg@5"]["value"] == 0.5
    assert result["scores"]["observe"]["by_fault"]["cpu"]["ac@1"]["value"] == 1
    assert result["scores"]["random"]["overall"]["ac@1"]["value"] == pytest.approx(0.2)
    assert result["scores"]["largest_shift"]["overall"]["ac@5"]["value"] == 0.5


def test_cases_without_a_known_truth_are_ranked_but_not_scored(folder):
    cases = orjson.loads((folder / "cases.json").read_bytes())
    del cases[0]["truth"], cases[1]["truth"], cases[1]["fault"]
    (folder / "cases.json").write_bytes(orjson.dumps(cases))
    result = diagnose.diagnose(folder)
    assert [case["ranked"][0] for case in result["cases"]] == ["cart", "pay"]
    assert result["scores"]["observe"]["overall"] == {"cases": 0}
    assert "seconds per case" in diagnose.text(result)


def test_the_command_prints_json_and_lines(folder):
    ran = CliRunner().invoke(cli, ["bench", "diagnose", "--data", str(folder), "--json"])
    assert ran.exit_code == 0, ran.output
    body = orjson.loads(ran.stdout)
    assert {"case", "fault", "ranked", "seconds"} <= set(body["cases"][0])
    assert set(body["scores"]) == {"observe", "largest_shift", "random"}
    lines = CliRunner().invoke(cli, ["bench", "diagnose", "--data", str(folder)]).stdout
    assert "AC@1 0.50 [" in lines
    both = ["bench", "diagnose", "--data", str(folder), "--made-up", "3"]
    assert CliRunner().invoke(cli, both).exit_code == 2


def test_service_and_metric_are_scored_together(folder):
    result = diagnose.diagnose(folder)
    for case in result["cases"]:
        first = case["resources"][0].split()
        assert first[0] in case["ranked"][:2]
        assert len(case["resources"]) == len(set(case["resources"])) <= 10
    known = [case for case in result["cases"] if case["resource_place"] is not None]
    assert result["resources"]["overall"]["cases"] == len(known)


def test_made_up_recordings_are_scored_by_the_same_command():
    ran = CliRunner().invoke(cli, ["bench", "diagnose", "--made-up", "3", "--json"])
    assert ran.exit_code == 0, ran.output
    body = orjson.loads(ran.stdout)
    assert [case["fault"] for case in body["cases"]] == ["cpu", "memory", "disk"]


def test_without_data_the_command_measures_speed():
    ran = CliRunner().invoke(cli, ["bench", "diagnose", "--services", "30", "--json"])
    assert ran.exit_code == 0, ran.output
    (entry,) = orjson.loads(ran.stdout)["sizes"]
    assert (entry["services"], entry["edges"]) == (30, 150)
    assert [entry[key] for key in ("first_right", "plain_first_right", "plain_finished")] == [True] * 3
    assert entry["seconds"] > 0


def test_two_runs_rank_alike(folder):
    def ranked():
        return [(case["ranked"], case["scores"]) for case in diagnose.diagnose(folder)["cases"]]

    assert ranked() == ranked()


@pytest.mark.parametrize(("share", "n"), [(0.0, 7), (1.0, 7), (0.5, 56)])
def test_wilson_intervals_hold_the_share(share, n):
    low, high = diagnose.wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    assert high - low < 0.5
