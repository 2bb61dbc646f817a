"""The folder format and the scores of `observe bench diagnose`."""

from __future__ import annotations

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from observe.bench import diagnose, public
from observe.cli import cli
from observe.errors import Misconfigured
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


def test_a_case_that_cannot_be_ranked_says_why_and_the_others_are_scored(folder):
    good, other = orjson.loads((folder / "cases.json").read_bytes())
    odd = [
        {"case": "one"},
        {"case": "one", "inject_at_s": "noon"},
        {"inject_at_s": 1},
        {"case": "empty", "inject_at_s": INJECT_S, "truth": {"service": "cart"}},
        "no object",
        good | {"symptom": "front", "truth": {"service": "cart", "metrics": "cpu"}},
        other | {"inject_at_s": 1e9, "symptom": {"service": "elsewhere"}},
    ]
    (folder / "cases.json").write_bytes(orjson.dumps(odd))
    result = diagnose.diagnose(folder)
    errors = [case["error"] for case in result["cases"]]
    for error, word in zip(errors, ("inject_at_s", "noon", "its name", "no metrics", "its name", "", ""), strict=True):
        assert word in error
        assert bool(word) == bool(error)
    assert [case["place"] for case in result["cases"][3:6]] == [None, None, 1]
    assert result["cases"][5]["metric_right"] is True
    assert [len(case["notes"]) for case in result["cases"]] == [0, 0, 0, 0, 0, 0, 2]
    assert result["scores"]["observe"]["overall"]["cases"] == 3
    assert result["scores"]["random"]["overall"]["ac@1"]["value"] == pytest.approx(2 * 0.2 / 3, abs=1e-3)
    assert "no spans of the fault" in diagnose.text(result)


def test_a_method_that_fails_misses_that_case_only(folder):
    def fails(case):
        if case.symptom_service:
            raise ZeroDivisionError("by nothing")
        return diagnose._offline(case)[0], {"asked": ["cart"]}

    result = diagnose.scored("set", public.cases(folder), ranker=fails)
    assert [case["error"] for case in result["cases"]] == ["", "ZeroDivisionError: by nothing"]
    assert [result["scores"][by]["overall"]["ac@1"]["value"] for by in ("observe", "asked")] == [0.5, 0.5]


def test_tables_may_be_of_other_types_and_separators(folder):
    expected = diagnose.diagnose(folder)
    table = pl.read_parquet(folder / "metrics.parquet")
    gaps = pl.DataFrame({"time_s": [1.0, None, 2.0], "service": ["cart", "cart", None], "metric": "cpu",
                         "value": [None, 1.0, float("nan")], "case": "one"}, schema=table.schema)  # fmt: skip
    mixed = pl.concat([table, gaps]).sample(fraction=1.0, shuffle=True, seed=1)
    (folder / "metrics.parquet").unlink()
    mixed.with_columns(more=pl.lit(1)).write_csv(folder / "metrics.csv", separator=";")
    recorded = pl.read_parquet(folder / "spans.parquet")
    hexes = [pl.col(name).bin.encode("hex") for name in ("trace_id", "span_id", "parent_span_id")]
    dated = pl.from_epoch("start_us", time_unit="us")
    recorded.with_columns(*hexes, dated, pl.duration(microseconds="duration_us").alias("duration_us")).write_parquet(
        folder / "spans.parquet"
    )
    (folder / "graph.csv").write_text((folder / "graph.csv").read_text().replace(",", "\t"))
    found = diagnose.diagnose(folder)
    assert [case["scores"] for case in found["cases"]] == [case["scores"] for case in expected["cases"]]


def test_a_graph_without_systems_is_that_of_every_case(folder):
    graph().write_csv(folder / "graph.csv")
    assert [one.case.graph.height for one in public.cases(folder)] == [graph().height] * 2


@pytest.mark.parametrize(("column", "value"), [("time_s", "noon"), ("value", "much")])
def test_a_table_of_which_nothing_can_be_read_is_refused_by_its_name(folder, column, value):
    table = pl.read_parquet(folder / "metrics.parquet")
    table.with_columns(pl.lit(value).alias(column)).write_parquet(folder / "metrics.parquet")
    with pytest.raises(Misconfigured, match=column):
        list(public.cases(folder))
    table.drop(column).write_parquet(folder / "metrics.parquet")
    with pytest.raises(Misconfigured, match=f"no column {column}"):
        list(public.cases(folder))
    (folder / "metrics.parquet").write_bytes(b"no such thing")
    with pytest.raises(Misconfigured, match=r"metrics\.parquet"):
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
