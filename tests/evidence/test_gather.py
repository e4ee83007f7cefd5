"""Evidence from records of a trained project, and what damaged or missing inputs get."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from factories.project import PAPER, TIER, arms, evidence, run, trained, write
from factories.record import record as made_up

from cyclery.common.errors import UserError
from cyclery.common.seals import seal
from cyclery.config.load import load
from cyclery.evidence.assemble import gather
from cyclery.evidence.build import rounded
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.records.readers import read_printed, read_records
from cyclery.records.trial_selection import FIRST_SEED

Json = dict[str, Any]
RECORDS = "results/smoke/records/one/L0-0000.jsonl"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of a project that is trained, to be damaged."""
    root = tmp_path / "project"
    shutil.copytree(trained(), root)
    return root


def gathered(root: Path, part: str = "one") -> Json:
    plan = check(load(root))
    gather(plan, part, root / "evidence.json", root / "table.csv")
    found: Json = json.loads((root / "evidence.json").read_bytes())
    return found


def experiment(data: Json, name: str) -> Json:
    return next(found for found in data["experiments"] if found["id"] == name)


def arm(data: Json, name: str) -> Json:
    return next(found for found in experiment(data, "main")["arms"] if found["id"] == name)


def records(root: Path) -> dict[tuple[str, int], Json]:
    """Return the records by arm and seed."""
    plan = check(load(root))
    lines = {
        found["key"]: found
        for path in (root / "results/smoke/records/one").glob("*.jsonl")
        for found in map(json.loads, path.read_text().splitlines())
    }
    return {
        (planned.name, seed): lines[planned.key(seed)]
        for shard in plan.part_shards("one")
        for planned, seed in shard.runs
    }


def test_figures_are_those_of_the_records(project: Path) -> None:
    data, found = gathered(project), records(project)
    for name in ("fast", "found", "student", "moving"):
        wanted = [found[name, seed]["final"]["test_accuracy"] for seed in range(3)]
        figure = arm(data, name)["metrics"]["test_accuracy"]
        assert figure["values"] == pytest.approx(wanted, rel=1e-9) and figure["seeds"] == [0, 1, 2]
        assert figure["mean"] == pytest.approx(sum(wanted) / 3)
        assert arm(data, name)["images"] == found[name, 0]["images"]
    [pair] = data["claims"][0]["comparisons"]
    accuracy = {run: 100 * record["final"]["test_accuracy"] for run, record in found.items()}
    differences = [accuracy["fast", seed] - accuracy["plain", seed] for seed in range(3)]
    assert pair["differences"] == pytest.approx(differences)
    assert pair["effect"] == pytest.approx(sum(differences) / 3)
    assert pair["unit"] == "pp"


def test_all_that_is_written_is_rounded(project: Path) -> None:
    data = gathered(project)
    assert rounded(data) == data


def test_the_best_control_is_chosen_on_validation_images(project: Path) -> None:
    found = records(project)
    mean = {
        name: sum(found[name, seed]["final"]["val_accuracy"] for seed in range(3))
        for name in ("plain", "fast")
    }
    pair = gathered(project)["claims"][1]["comparisons"][0]
    assert pair["chosen"] == max(mean, key=mean.__getitem__)
    assert pair["against"] == "best of plain, fast"


def test_the_range_test_is_an_arm_only_of_experiments_whose_claims_speak_of_it(
    project: Path,
) -> None:
    data = gathered(project)
    assert [a["id"] for a in experiment(data, "main")["arms"]][-1] == "range-test"
    assert "range-test" not in [a["id"] for a in experiment(data, "twin")["arms"]]
    [sweep] = data["ranges"]
    figures = arm(data, "range-test")["metrics"]
    assert set(figures) == {"log10_base", "log10_max", "range_deviation"}
    assert 10 ** figures["log10_max"]["mean"] == pytest.approx(sweep["max"])
    # Two values lie equally far from their mean.
    one, other = figures["range_deviation"]["values"]
    assert one == pytest.approx(other)
    assert sweep["seeds"] == [0, 1] and len(sweep["lr"]) == len(sweep["accuracy"][0])


def test_an_arm_takes_its_bounds_from_the_range_test(project: Path) -> None:
    data, found = gathered(project), records(project)
    bounds = found["found", 0]["inputs"]["range"]
    [sweep] = data["ranges"]
    assert (bounds["base"], bounds["max"]) == pytest.approx((sweep["base"], sweep["max"]))
    [drawn] = [s for s in experiment(data, "main")["schedules"]
               if (s["arm"], s["quantity"]) == ("found", "lr")]  # fmt: skip
    assert min(drawn["value"]) >= bounds["base"] * 0.999
    assert max(drawn["value"]) <= bounds["max"] * 1.001
    assert drawn["epoch"] == sorted(drawn["epoch"]) and drawn["epoch"][-1] < 5


def test_settings_are_said_in_words(project: Path) -> None:
    data = gathered(project)
    settings = experiment(data, "main")["settings"]
    assert settings["dataset"] == "digits" and settings["labelled samples in an epoch"] == "100"
    assert settings["network"].startswith("bn_mlp (hidden 128-128, activation relu, norm_momentum")
    assert "dropout" not in settings["network"] and "strong view" not in settings
    assert settings["batch"] == settings["method"] == settings["lr"] == "differs by arm"
    assert settings["augmentation"] == "none" and settings["momentum"] == "0.9"
    assert experiment(data, "twin")["settings"]["batch"] == "50"
    assert experiment(data, "main")["command"] == (
        "snakemake --cores all one.main --config tier=smoke seeds=3"
    )


def test_a_run_that_experiments_share_counts_once(project: Path) -> None:
    data, found = gathered(project), records(project)
    assert arm(data, "plain")["keys"] == experiment(data, "twin")["arms"][0]["keys"]
    runs = {record["key"]: record for record in found.values()}
    sweeps = [
        json.loads(line)
        for line in (project / "results/smoke/lr-range/one.jsonl").read_text().splitlines()
    ]
    assert data["provenance"]["records"] == len(runs) + len(sweeps)
    assert data["provenance"]["seconds"] == pytest.approx(
        sum(record["seconds"] for record in [*runs.values(), *sweeps])
    )


@pytest.mark.parametrize(
    ("part", "claims", "wanted"),
    [
        ("one.main", {"C-1", "C-2"}, {"main": 6}),
        ("one.twin", {"C-3"}, {"twin": 2}),
        ("one.C-1", {"C-1"}, {"main": 2}),
        # The range test comes with an arm that asks for it.
        ("one.C-2", {"C-2"}, {"main": 4}),
    ],
)
def test_a_part_shows_its_own_claims_and_arms(
    part: str, claims: set[str], wanted: dict[str, int], project: Path
) -> None:
    out = project / "results/smoke"
    plan = check(load(project))
    for group in plan.groups(part):
        run(project, "lr-range", group, "--output", f"{out}/lr-range/{group}.jsonl")
    for shard in plan.part_shards(part):
        run(project, "train", shard.id, "--output", f"{out}/records/{shard.id}.jsonl")
    data, whole = gathered(project, part), gathered(project)
    assert data["part"] == part
    assert {claim["id"] for claim in data["claims"]} == claims
    assert {e["id"]: len(e["arms"]) for e in data["experiments"]} == wanted
    # The same runs, so the same effects as in the whole paper.
    effects = {c["id"]: [p["effect"] for p in c["comparisons"]] for c in whole["claims"]}
    for claim in data["claims"]:
        assert [pair["effect"] for pair in claim["comparisons"]] == effects[claim["id"]]


def test_the_same_inputs_give_the_same_evidence(project: Path) -> None:
    first, second = gathered(project), evidence(project)
    assert first == second and first["sha256"]
    assert first["provenance"]["made"].startswith("20")
    assert (project / "table.csv").read_text() == (project / "results/smoke/one.csv").read_text()


def test_the_table_is_tidy(project: Path) -> None:
    gathered(project)
    with (project / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = records(project)
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        if row["arm"] in ("fast", "found"):
            record = found[row["arm"], int(row["seed"])]
            assert float(row["test_accuracy"]) == record["final"]["test_accuracy"]
            assert row["key"] == record["key"]


def damage(root: Path, change: Any) -> None:
    path = root / RECORDS
    path.write_text(change(path.read_text()))


def test_a_diverged_run_is_shown_and_counts_as_chance(project: Path) -> None:
    broken = records(project)["fast", 1]["key"]

    def diverge(text: str) -> str:
        lines = [json.loads(line) for line in text.splitlines()]
        for record in lines:
            if record["key"] == broken:
                record |= {"status": "diverged", "diverged_step": 7, "final": {}}
        return "".join(json.dumps(seal(record)) + "\n" for record in lines)

    damage(project, diverge)
    data = gathered(project)
    assert arm(data, "fast")["diverged"] == [{"seed": 1, "step": 7}] and arm(data, "fast")["n"] == 2
    row = data["claims"][0]["comparisons"][0]
    assert row["seeds"] == [0, 1, 2] and row["n"] == 3
    assert any("counted as chance, 10 %" in text for text in row["diverged"])
    assert data["provenance"]["diverged"] == 1


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda text: text[:-200], "line 15: the record was cut or altered"),
        (lambda text: text.replace('"n_classes"', '"x"').replace("0.9", "0.8", 1), "line 1"),
        (lambda text: "\n".join(text.splitlines()[:-2]), "lacks 2 of its records"),
        (lambda text: "", "lacks 15 of its records"),
        (lambda text: text + "null\n", "line 16: the record was cut or altered"),
    ],
    ids=["cut", "altered", "lines lost", "empty", "no record"],
)
def test_damaged_records_are_named(
    change: Any, wanted: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(project, change)
    run(project, "evidence", "one", "--output", f"{project}/e.json", expect=2)
    said = capsys.readouterr().err
    assert said.startswith(f"cyclery: {project}/{RECORDS}")
    assert wanted in said and "Delete the file" in said
    assert not (project / "e.json").exists()


def test_missing_records_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / RECORDS).unlink()
    run(project, "evidence", "one", "--output", f"{project}/e.json", expect=2)
    assert "L0-0000.jsonl: there is no such file" in capsys.readouterr().err
    with pytest.raises(UserError, match="cannot be read"):
        read_records({project: []})


PRINTED = "metric,value,std,runs\n"


def test_printed_figures(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    assert read_printed(path) == []
    path.write_text(PRINTED + 'accuracy,92.5,,5\n"error, in %",,0.1,\n')
    assert read_printed(path) == [
        {"metric": "accuracy", "value": 92.5, "decimals": 1, "std": None, "runs": 5.0},
        {"metric": "error, in %", "value": None, "decimals": 1, "std": 0.1, "runs": None},
    ]
    # A zero at the end is part of what is printed; a header of this name is not ours.
    path.write_text("metric,value,std,decimals\na,72.50,1.2,9\nb,9.1e-3,,9\nc,7,,9\n")
    assert [one["decimals"] for one in read_printed(path)] == [2, 0, 0]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"metric,number\na,1\n", "line 1: must name the columns, `metric` and `value`"),
        (b"", "line 1: must name the columns"),
        (PRINTED.encode() + b"a,twelve,,\n", r"line 2: value must be a number .* 'twelve'"),
        (PRINTED.encode() + b"a,1,,\nb,1,nan,\n", "line 3: std must be a number"),
        (PRINTED.encode() + b"a,1\n", "line 2: has another number of cells"),
        (PRINTED.encode() + b"a,1,,,,\n", "line 2: has another number of cells"),
        (PRINTED.encode() + b'"a,1,,\n', "not a table"),
        (b"\xff\xfe", "not a table"),
    ],
)
def test_printed_figures_that_are_none(content: bytes, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=wanted) as caught:
        read_printed(path)
    assert str(path) in str(caught.value)


def test_a_changed_printed_figure_makes_the_evidence_again(project: Path) -> None:
    from cyclery.plan.snakemake_api import Graph

    graph = Graph.of(load(project, {}))
    before = (graph.part_digest("one"), graph.shard_digest("one", "L0-0000"))
    with (project / "config/reported/one.csv").open("a") as stream:
        stream.write("one,3,b,1,,\n")
    graph = Graph.of(load(project, {}))
    assert before[0] != graph.part_digest("one")
    assert before[1] == graph.shard_digest("one", "L0-0000")


# Tuning, with records that are made up.


def tuned(root: Path) -> Plan:
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    tier.update(tuning=True)
    paper["experiments"]["main"]["tune"] = {"lr": [0.5, 1, 2]}
    arms(paper)["fast"]["label"] = "Fast"
    write(root, tier, paper)
    plan = check(load(root))
    return plan


def test_the_trial_that_validates_best_speaks_for_the_arm(tmp_path: Path) -> None:
    plan = tuned(tmp_path)
    good = {"plain": 0.5, "fast": 2}
    for shard in plan.closure("one"):
        lines = []
        for planned, seed in shard.runs:
            best = planned.factors.get("lr") == good[planned.name]
            # What is best on validation images is not best on test images.
            final = {"val_accuracy": 0.9 if best else 0.5, "test_accuracy": 0.1 if best else 0.8}
            record: Json = {**made_up(planned.key(seed), seed, 0.5),
                            "settings": planned.run(seed), "final": final}  # fmt: skip
            if planned.trials:
                # One of the runs is of an earlier choice.
                stale = (planned.name, seed) == ("fast", 1)
                record["inputs"]["tuned"] = {"lr": 1 if stale else good[planned.name]}
                record["final"] = {"val_accuracy": 0.6, "test_accuracy": 0.7}
            if planned.factors.get("lr") == 2 and planned.name == "plain" and seed == FIRST_SEED:
                record |= {"status": "diverged", "diverged_step": 3, "final": {}}
            lines.append(json.dumps(seal(record)))
        path = tmp_path / f"results/smoke/records/{shard.id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    data = gathered(tmp_path)
    for name, factor in good.items():
        assert arm(data, name)["metrics"]["test_accuracy"]["mean"] == pytest.approx(0.7)
        note = arm(data, name)["tuned"]
        assert note["chosen"] == {"lr": factor}
        assert [trial["factors"]["lr"] for trial in note["trials"]] == [0.5, 1, 2]
    scores = {t["factors"]["lr"]: t["val_accuracy"] for t in arm(data, "plain")["tuned"]["trials"]}
    assert scores == pytest.approx({0.5: 0.9, 1: 0.5, 2: None})
    assert experiment(data, "main")["warnings"] == [
        "fast: seed 1 left out, the record is of another run."
    ]
    assert arm(data, "fast")["metrics"]["test_accuracy"]["seeds"] == [0]
