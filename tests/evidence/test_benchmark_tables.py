"""Benchmark tables in the evidence: what stands in each cell, which is best, what is missing."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories.project import TIER, run, trained

from cyclery.config.load import load
from cyclery.evidence.assemble import gather
from cyclery.evidence.stats.paired_tests import estimate, interval
from cyclery.plan.project_checks import check

Json = dict[str, Any]
PRINTED = """\
paper,table,dataset,labels,architecture,method,metric,value,std,runs,source,confidence
one,Table 1,Digits (8x8),100,MLP,Slow,error_percent,9.5,0.4,5,text,read
one,Table 1,Digits (8x8),100,MLP,Plain,error_percent,8.25,0.1,5,text,read
one,Table 1,Other,100,MLP,Plain,error_percent,,,,text,read
one,reproduction,Digits (8x8),100,MLP,Plain,error_percent,8.5,,,theirs,read
one,left over,Digits (8x8),100,MLP,Plain,error_percent,1,,,text,memory
"""
TABLE: Json = {
    "title": "Table 1",
    "caption": "error",
    "shows": "error",
    "arm": "{arm}",
    "printed": {"table": "Table 1", "dataset": "{column}", "method": "{row}"},
    "rows": [
        {"head": "Slow", "names": {"arm": "slow"}},
        {"head": "Plain", "names": {"arm": "plain"}},
        {"head": "Theirs", "by": "Others", "printed": {"table": "reproduction", "method": "Plain"}},
        {"head": "Absent", "empty": "not among our methods"},
    ],
    "columns": [{"head": "Digits (8x8)", "experiments": "twin"}, "Other"],
}

# Here the arms differ by more than the interval.
DECIDED: Json = {**TABLE, "metric": "test_nll", "shows": "value"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a trained project with printed figures, to be given tables."""
    root = tmp_path / "project"
    shutil.copytree(trained(), root)
    (root / "config/reported/one.csv").write_text(PRINTED)
    return root


def gathered(root: Path, tables: Json, part: str = "one", not_run: Json | None = None) -> Json:
    """Return the evidence of the paper with these tables."""
    path = root / "config/papers/one.yaml"
    paper = yaml.safe_load(path.read_text())
    paper["tables"] = tables
    if not_run:
        paper["experiments"]["twin"]["tiers"]["smoke"] = {"arms": ["plain"], "not_run": not_run}
    path.write_text(yaml.safe_dump(paper, sort_keys=False))
    gather(check(load(root)), part, root / "evidence.json", None)
    found: Json = json.loads((root / "evidence.json").read_bytes())
    return found


def by_place(table: Json) -> dict[tuple[int, int], Json]:
    return {(cell["row"], cell["column"]): cell for cell in table["cells"]}


def arm(data: Json, experiment: str, name: str) -> Json:
    [found] = [a for e in data["experiments"] if e["id"] == experiment
               for a in e["arms"] if a["id"] == name]  # fmt: skip
    return found


def test_a_cell_names_its_arm_and_its_printed_figure(project: Path) -> None:
    data = gathered(project, {"t": TABLE})
    [table] = data["tables"]
    assert [row["heads"] for row in table["rows"]] == [["Slow"], ["Plain"], ["Theirs"], ["Absent"]]
    assert [row["by"] for row in table["rows"]] == [None, None, "Others", None]
    cells = by_place(table)
    slow, plain = cells[0, 0], cells[1, 0]
    assert (slow["experiment"], slow["arm"], slow["empty"]) == ("twin", "slow", "")
    assert data["printed"][plain["printed"]]["value"] == 8.25
    assert data["printed"][cells[2, 0]["printed"]]["value"] == 8.5
    # A figure that could not be read is printed all the same.
    assert data["printed"][cells[1, 1]["printed"]]["value"] is None
    assert slow["shows"] == "error" and slow["lower_is_better"] is True
    # The paper prints nothing there, and nothing of ours is meant for it.
    assert (0, 1) not in cells


def test_what_is_empty_has_its_reason(project: Path) -> None:
    cells = by_place(gathered(project, {"t": TABLE})["tables"][0])
    assert cells[3, 0]["empty"] == "not among our methods"
    assert cells[2, 0]["empty"] == "figures of others"
    assert cells[1, 1]["empty"] == "no arm of ours"
    table = copy.deepcopy(TABLE)
    table["rows"][0]["by"] = "Others"
    cells = by_place(gathered(project, {"t": table}, not_run={"slow": "too slow"})["tables"][0])
    assert cells[0, 0]["empty"] == "too slow", "ours may stand beside figures of others"
    cells = by_place(gathered(project, {"t": TABLE}, not_run={"slow": "too slow"})["tables"][0])
    assert cells[0, 0]["empty"] == "too slow" and cells[0, 0]["experiment"] is None


def test_runs_without_the_metric_leave_the_cell_empty(project: Path) -> None:
    table = {**TABLE, "metric": "test_agreement"}
    cell = by_place(gathered(project, {"t": table})["tables"][0])[0, 0]
    assert cell["empty"] == "its runs have no test_agreement" and cell["arm"] == "slow"


def test_a_metric_that_no_claim_names_is_in_the_arm(project: Path) -> None:
    data = gathered(project, {"t": {**TABLE, "metric": "{which}", "columns": [
        {"head": "Digits (8x8)", "experiments": "twin", "names": {"which": "val_accuracy@0.4"}},
    ]}})  # fmt: skip
    assert by_place(data["tables"][0])[0, 0]["empty"] == ""
    assert len(arm(data, "twin", "slow")["metrics"]["val_accuracy@0.4"]["values"]) == 3


def test_arms_say_their_method_data_and_network(project: Path) -> None:
    data = gathered(project, {})
    slow = arm(data, "twin", "slow")
    assert slow["method"] == "supervised" and slow["network"] == "bn_mlp 128-128"
    assert slow["data"] == "Digits (8x8), 100 labels"
    assert arm(data, "main", "range-test")["data"] == ""


@pytest.mark.parametrize(("metric", "decided"), [("val_accuracy", False), ("test_nll", True)])
def test_the_best_beats_the_next_by_more_than_the_interval(
    project: Path, metric: str, decided: bool
) -> None:
    shows = "value" if metric == "test_nll" else "error"
    data = gathered(project, {"t": {**TABLE, "metric": metric, "shows": shows}})
    cells = by_place(data["tables"][0])
    found = {name: arm(data, "twin", name)["metrics"][metric] for name in ("slow", "plain")}
    sign = -1 if metric == "test_nll" else 1
    best, other = sorted(found, key=lambda name: -sign * found[name]["mean"])
    differences = [sign * (a - b) for a, b in
                   zip(found[best]["values"], found[other]["values"], strict=True)]  # fmt: skip
    ends = interval(estimate(differences))
    assert ends is not None and (ends[0] > 0) is decided
    marked = {cell["arm"] for cell in cells.values() if cell["best"]}
    assert marked == ({best} if decided else set())


def test_lines_that_do_not_compete_and_the_same_runs_are_not_marked(project: Path) -> None:
    table = copy.deepcopy(DECIDED)
    table["rows"][1]["competes"] = False
    assert not any(cell["best"] for cell in gathered(project, {"t": table})["tables"][0]["cells"])
    # The same runs twice: nothing to compare.
    table = {**DECIDED, "arm": "plain"}
    assert not any(cell["best"] for cell in gathered(project, {"t": table})["tables"][0]["cells"])


def test_the_best_is_not_marked_where_the_next_is_of_another_experiment(project: Path) -> None:
    table = copy.deepcopy(DECIDED)
    table["rows"][1]["names"]["arm"] = "main/fast"
    cells = by_place(gathered(project, {"t": table})["tables"][0])
    assert cells[1, 0]["experiment"] == "main" and not any(c["best"] for c in cells.values())
    # The better of one experiment is not the best of all.
    alone = gathered(project, {"t": DECIDED})["tables"][0]["cells"]
    assert [cell["arm"] for cell in alone if cell["best"]] == ["plain"]
    table = {**copy.deepcopy(DECIDED), "columns": DECIDED["columns"][:1]}
    table["rows"].append({"head": "Fast", "names": {"arm": "main/fast"}})
    data = gathered(project, {"t": table})
    fast, plain = arm(data, "main", "fast"), arm(data, "twin", "plain")
    assert fast["metrics"]["test_nll"]["mean"] < plain["metrics"]["test_nll"]["mean"]
    assert not any(cell["best"] for cell in data["tables"][0]["cells"])


def test_where_methods_are_columns_a_row_competes(project: Path) -> None:
    turned = {
        **DECIDED, "methods": "columns", "rows": TABLE["columns"], "columns": TABLE["rows"],
        "printed": {"table": "Table 1", "dataset": "{row}", "method": "{column}"},
    }  # fmt: skip
    [table] = gathered(project, {"t": turned})["tables"]
    assert [column["by"] for column in table["columns"]] == [None, None, "Others", None]
    marked = [(c["row"], c["column"]) for c in table["cells"] if c["best"]]
    assert marked in ([(0, 0)], [(0, 1)])


def test_others_are_named_whichever_axis_says_them(project: Path) -> None:
    columns = [*TABLE["columns"], {"head": "Digits (8x8)", "by": "Users", "experiments": []}]
    [table] = gathered(project, {"t": {**TABLE, "columns": columns, "rows": TABLE["rows"][:2]}})[
        "tables"
    ]
    assert [line["by"] for line in table["columns"]] == [None, None, "Users"]
    assert [line["by"] for line in table["rows"]] == [None, None]
    assert by_place(table)[1, 2]["empty"] == "figures of others"


def other_tier(project: Path, name: str, **changes: Any) -> None:
    """Declare a tier that runs the experiment `twin` with the speed of 10 images a second."""
    tier = {**TIER, "seeds": 4, "images_per_second": {"bn_mlp": 10}, **changes}
    (project / f"config/tiers/{name}.yaml").write_text(yaml.safe_dump(tier))
    path = project / "config/papers/one.yaml"
    paper = yaml.safe_load(path.read_text())
    paper["experiments"]["twin"]["tiers"][name] = {}
    path.write_text(yaml.safe_dump(paper, sort_keys=False))


def test_a_cell_says_what_the_tier_nearest_to_the_paper_would_cost(project: Path) -> None:
    other_tier(project, "desk")
    other_tier(project, "paper", seeds=2)
    cells = by_place(gathered(project, {"t": TABLE})["tables"][0])
    # 500 images a run, two seeds.
    fill = cells[0, 0]["fill"]
    assert (fill["tier"], fill["run"], [*fill["seconds"].values()]) == (
        "paper", "twin/slow", [100.0]
    )  # fmt: skip
    assert cells[3, 0]["fill"] is None
    nearest = {**TABLE, "same": {"desk": "as printed"}}
    cells = by_place(gathered(project, {"t": nearest})["tables"][0])
    fill = cells[0, 0]["fill"]
    assert fill["tier"] == "desk" and sum(fill["seconds"].values()) == 200.0
    assert cells[0, 0]["same"] is False


def test_a_tier_with_the_papers_setting_needs_no_other(project: Path) -> None:
    other_tier(project, "paper")
    table = {**TABLE, "same": {"smoke": "the same images"}}
    [made] = gathered(project, {"t": table})["tables"]
    cells = by_place(made)
    assert made["same"] == {"smoke": "the same images"}
    assert cells[0, 0]["same"] is True and cells[0, 0]["fill"] is None


def test_ours_may_have_the_papers_setting_where_it_prints_nothing(project: Path) -> None:
    table = copy.deepcopy({**TABLE, "same": {"smoke": "the same images"}})
    table["rows"].append({"head": "Control (ours)", "names": {"arm": "plain"}})
    cell = by_place(gathered(project, {"t": table})["tables"][0])[4, 0]
    assert cell["printed"] is None and cell["same"] is True


def test_a_mistake_at_another_tier_costs_only_the_estimate(project: Path) -> None:
    other_tier(project, "paper", base={**TIER["base"], "batch": 999})
    assert by_place(gathered(project, {"t": TABLE})["tables"][0])[0, 0]["fill"] is None


def test_a_part_shows_the_tables_that_it_has_arms_of(project: Path) -> None:
    records = project / "results/smoke/records/one.twin/L0-0000.jsonl"
    run(project, "train", "one.twin/L0-0000", "--output", str(records))
    other = {**TABLE, "columns": [{"head": "Digits (8x8)", "experiments": "main"}]}
    both = {"t": TABLE, "u": other}
    assert [t["id"] for t in gathered(project, both, part="one.twin")["tables"]] == ["t"]
    assert [t["id"] for t in gathered(project, both)["tables"]] == ["t", "u"]
    # Of two experiments the first that runs at the tier counts, though this part has the second.
    first = {**TABLE["columns"][0], "experiments": ["main", "twin"]}
    table = {**TABLE, "columns": [first, TABLE["columns"][0]], "same": {"smoke": "the same"}}
    cells = by_place(gathered(project, {"t": table}, part="one.twin")["tables"][0])
    assert cells[1, 0]["empty"] == "main/plain is not in this part"
    assert (cells[1, 0]["experiment"], cells[1, 0]["same"]) == (None, False)
    assert (cells[1, 1]["experiment"], cells[1, 1]["empty"]) == ("twin", "")


def test_lines_of_others_are_marked_on_either_axis(project: Path) -> None:
    turned = {
        **TABLE, "methods": "columns", "columns": TABLE["rows"][:2],
        "printed": {"table": "Table 1", "dataset": "{row}", "method": "{column}"},
        "rows": ["Digits (8x8)",
                 {"head": "Digits (8x8)", "by": "Others", "printed": {"table": "reproduction"}}],
    }  # fmt: skip
    [table] = gathered(project, {"t": turned})["tables"]
    assert [row["by"] for row in table["rows"]] == [None, "Others"]
