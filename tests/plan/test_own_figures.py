"""Figures of methods and probes in claims and tables, and arms without an accuracy."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import component, small_paper
from factories.component import Write
from factories.method import text
from factories.page import Page
from factories.project import TIER
from factories.project import write as write_project

from cyclery import methods
from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan.graph import Plan
from cyclery.plan.own_figures import own_figures
from cyclery.plan.project_checks import check

Json = dict[str, Any]

MEASURES = """
    def measures(settings):
        return {names}

    def evaluate(models, measured, settings):
        return {{}}
    """
LINEAR: Json = {"name": "linear", "l2": [0.1]}
SPLIT: Json = {"test": 200, "validation": 100, "per_class": 10}


@pytest.fixture(autouse=True, scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Write]:
    """Write the methods of these tests."""
    with component.written(methods, tmp_path_factory.mktemp("methods")) as writer:
        writer("measuring", text(more=MEASURES.format(names='("test_own_accuracy", "own_l2")')))
        yield writer


def arms() -> Json:
    return {
        "encoder": {"method": "simclr", "split": SPLIT, "probes": {"h": LINEAR}},
        "measuring": {"method": "measuring", "split": SPLIT},
        "plain": {"split": SPLIT},
    }


def compared(arm: str, metric: str, against: Any = None, **more: Any) -> Json:
    """Return a comparison with a constant, or with another arm."""
    against = {"constant": 1} if against is None else against
    return {"experiment": "main", "arm": arm, "against": against, "metric": metric, **more}


def refused(root: Path, comparison: Json, given: Json | None = None) -> str:
    with pytest.raises(UserError) as error:
        small_paper.planned(root, given or arms(), [comparison])
    said = str(error.value)
    assert "\n" not in said, said
    return said.partition("one.yaml: ")[2]


# Claims.


@pytest.mark.parametrize(
    ("arm", "metric"),
    [
        ("encoder", "test_h_accuracy"),
        ("encoder", "train_loss@0.5"),
        ("measuring", "test_own_accuracy"),
        ("measuring", "test_own_accuracy@0.5"),
        ("measuring", "test_own_accuracy_mean20"),
        ("measuring", "test_accuracy"),
        ("plain", "train_accuracy"),
    ],
)
def test_a_figure_that_an_arm_has_may_be_claimed(arm: str, metric: str, tmp_path: Path) -> None:
    lower = {"lower_is_better": True} if "loss" in metric else {}
    small_paper.planned(tmp_path, arms(), [compared(arm, metric, **lower)])


HEADLESS = "its method, simclr, trains no head; measure its features by `probes`."
END = "a probe is measured at the end of a run alone; take test_h_accuracy."
NOTHING = "neither its method nor its `probes` measure it ("


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        (
            compared("encoder", "test_accuracy"),
            f"'test_accuracy' is no figure of 'encoder': {HEADLESS}",
        ),
        (compared("encoder", "val_nll", lower_is_better=True), HEADLESS),
        (compared("encoder", "train_accuracy"), HEADLESS),
        (compared("encoder", "test_accuracy@0.5"), HEADLESS),
        (compared("encoder", "test_accuracy_mean20"), HEADLESS),
        # Made of the accuracy of each class.
        (compared("encoder", "few_accuracy"), HEADLESS),
        (compared("plain", "test_accuracy", "encoder"), "is no figure of 'encoder'"),
        (compared("encoder", "test_h_accuracy@0.5"), END),
        (compared("encoder", "test_h_accuracy_mean20"), END),
        (
            compared("plain", "test_h_accuracy"),
            f"'test_h_accuracy' is no figure of 'plain': {NOTHING}they measure nothing of their ow",
        ),
        (
            compared("measuring", "test_h_accuracy"),
            f"is no figure of 'measuring': {NOTHING}they measure own_l2, test_own_accuracy",
        ),
        (
            compared("encoder", "test_h_acuracy"),
            "unknown metric 'test_h_acuracy'. Did you mean 'test_h_accuracy'?",
        ),
        (
            compared("plain", "test_accuracy", {"best_of": ["measuring", "encoder"]}),
            "'test_accuracy' is no figure of 'encoder'",
        ),
        # What chooses is a figure of validation: those of a pool know hidden labels.
        (
            compared("plain", "test_accuracy", {"best_of": ["encoder"], "by": "h_l2"}),
            "unknown metric 'h_l2'. There are: val_",
        ),
    ],
)  # fmt: skip
def test_a_figure_that_an_arm_has_not_is_one_message(
    comparison: Json, said: str, tmp_path: Path
) -> None:
    found = refused(tmp_path, comparison)
    assert found.startswith("claims.C-1.comparisons[0]") and said in found


# Names.


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ('("test_shape",)', "has 'test_shape', which does not end in the name of a metric"),
        ('("test_accuracy",)', "has 'test_accuracy', a figure of every run; choose another name."),
        ('("test_own_accuracy")', "measures must return a tuple of names, as ('one',) (found 'te"),
        ("None", "measures must return a tuple of names, as ('one',) (found None)"),
    ],
)
def test_a_name_that_says_no_unit_is_refused_though_no_claim_asks_for_it(
    names: str, said: str, write: Write, tmp_path: Path
) -> None:
    write("naming", text(more=MEASURES.format(names=names)))
    given = {"plain": {"split": SPLIT}, "naming": {"method": "naming", "split": SPLIT}}
    found = refused(tmp_path, compared("plain", "test_accuracy"), given)
    assert "method: " in found and said in found


def test_a_probe_has_no_name_that_the_method_has(tmp_path: Path) -> None:
    given = {"both": {"method": "measuring", "split": SPLIT, "probes": {"own": LINEAR}}}
    found = refused(tmp_path, compared("both", "test_accuracy"), given)
    assert "probes.own: 'test_own_accuracy' is a figure that the method measures already" in found


def test_the_figures_of_an_arm_are_those_of_its_method_and_its_probes(tmp_path: Path) -> None:
    given = arms()
    given["measuring"]["probes"] = {"few": {**LINEAR, "per_class": 4}}
    plan = small_paper.planned(tmp_path, given, [compared("plain", "test_accuracy")])
    found = own_figures(plan.arm("one", "main", "measuring").settings)
    assert {"test_own_accuracy", "own_l2", "test_few_accuracy", "val_few_accuracy"} <= found
    assert own_figures(plan.arm("one", "main", "plain").settings) == frozenset()


@pytest.mark.parametrize("hook", ["parents", "judges", "voters", "keeps"])
def test_names_in_a_text_are_no_tuple_of_names(hook: str, write: Write, tmp_path: Path) -> None:
    from cyclery import methods

    # Files of one name, size and second would share their bytecode.
    write(f"{hook}_text", text(more=f'\n    def {hook}(settings):\n        return ("teacher")\n'))
    found = methods.load(f"{hook}_text")
    with pytest.raises(UserError, match=rf"{hook}_text.py: {hook} must return a tuple of names"):
        getattr(found, hook)(found.chosen({}))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("def event(models, moment, settings): ...", "event does nothing without events; write b"),
        ("def events(settings, clock): return ()", "events does nothing without event; write bo"),
        ("def measures(settings): return ()", "measures does nothing without evaluate; write bo"),
        ("def predict(models, x): ...", "predict must take 3 arguments: models, x, settings."),
        ("def features(x): ...", "features must take 3 arguments: models, x, settings."),
        ("def begin(models, moment, settings, more): ...", "begin must take 3 arguments: models, "),
        ("def forwards(settings): ...", "forwards must take 2 arguments: settings, images."),
        ("def modules(settings): ...", "modules must take 2 arguments: settings, made."),
        ("def classifies(): ...", "classifies must take 1 argument: settings."),
        ("keeps = ('projector',)", "keeps must be a function (found ('projector',))."),
    ],
)
def test_a_hook_with_other_arguments_is_one_message_with_the_file(
    more: str, said: str, write: Write
) -> None:
    from cyclery import methods

    file = write("hooked", text(more=f"\n{more}\n"))
    with pytest.raises(UserError) as error:
        methods.load("hooked")
    assert str(error.value).startswith(f"{file}: {said}") and "\n" not in str(error.value)


# What reads an accuracy that nothing trains.


def tuned(root: Path, experiment: Json, **arm: Any) -> Plan:
    """Return the plan of an experiment with a key besides its arms, at a tier that tunes."""
    tier = copy.deepcopy(TIER) | {"tuning": True}
    tier["base"] |= {**copy.deepcopy(small_paper.BASE)}
    main: Json = {"title": "-", "tiers": {"smoke": {}}, "arms": {"one": arm}, **experiment}
    claim: Json = {"statement": "-", "comparisons": [
        compared("one", "seconds", lower_is_better=False)]}  # fmt: skip
    paper = {"title": "-", "authors": "-", "year": 2026, "summary": "-", "claims": {"C-1": claim},
             "experiments": {"main": main}}  # fmt: skip
    write_project(root, tier, paper, {"tier": "smoke", "device": "cpu"})
    return check(load(root, {}))


RANGE: Json = {"range": {"low": 0.01, "high": 1, "epochs": 5, "seeds": 1}}


def test_a_range_test_and_tuning_need_a_head_that_is_trained(tmp_path: Path) -> None:
    headless: Json = {"method": {"name": "simclr"}, "strong": small_paper.STRONG}
    with pytest.raises(UserError, match="lr: a range test reads held-out accuracy, but the method"):
        tuned(tmp_path, RANGE, lr="range", **headless)
    with pytest.raises(UserError, match="tune: chooses by validation accuracy, but the method of"):
        tuned(tmp_path, {"tune": {"lr": [0.5, 1]}}, **headless)


def test_a_range_test_is_the_same_with_a_probe_and_without(tmp_path: Path) -> None:
    plans = [
        tuned(tmp_path / name, RANGE, lr="range", **more)
        for name, more in {"with": {"probes": {"h": LINEAR}}, "without": {}}.items()
    ]
    one, other = (plan.arm("one", "main", "one") for plan in plans)
    assert one.key(0) != other.key(0) and one.range and other.range
    assert one.range.key == other.range.key


# From the plan to the report.


def made(root: Path, plan: Plan) -> Path:
    """Return the folder of results of a plan, made by the commands that rules run."""
    results = root / "results/smoke"

    def run(*options: Any) -> None:
        assert not main(["--root", str(root), *map(str, options)]), options

    run("prepare", "digits")
    for shard in plan.closure("one"):
        run("train", shard.id, "--output", results / f"records/{shard.id}.jsonl")
    evidence = results / "evidence/one.json"
    run("evidence", "one", "--output", evidence, "--table", results / "tables/one.csv")
    run("report", evidence, "--output", results / "report/index.html")
    run("status")
    run("compare", results, results, "--metric", "seconds")
    return results


def test_a_project_whose_only_arm_has_no_accuracy_comes_to_its_report(tmp_path: Path) -> None:
    plan = small_paper.planned(
        tmp_path,
        {"encoder": {"method": "simclr", "split": {**SPLIT, "validation": 0}}},
        [compared("encoder", "seconds", lower_is_better=False)],
    )
    results = made(tmp_path, plan)
    evidence = json.loads((results / "evidence/one.json").read_text())
    [arm] = evidence["experiments"][0]["arms"]
    assert arm["metrics"] == {} and arm["n"] == 1 and arm["views"] == 600
    [row] = csv.DictReader((results / "tables/one.csv").read_text().splitlines())
    assert row["status"] == "done" and "test_accuracy" not in row
    page = Page((results / "report/index.html").read_text("utf-8"))
    words = " ".join(each for each in page.texts if "{" not in each)
    assert "Seeds: 0." in words and "Seeds: ." not in words
    assert not {"nan", "None", "undefined"} & set(words.split())


def test_figures_of_probes_and_methods_reach_verdicts_and_tables(tmp_path: Path) -> None:
    claims = [compared("encoder", "test_h_accuracy"), compared("plain", "test_accuracy")]
    table: Json = {"title": "Table 1", "caption": "-", "experiments": "main",
                   "rows": [{"head": "one", "arm": "encoder"}],
                   "columns": [{"head": "probe", "metric": "test_h_accuracy"},
                               {"head": "own"}]}  # fmt: skip
    small_paper.planned(tmp_path, arms(), claims)
    file = tmp_path / "config/papers/one.yaml"
    paper = yaml.safe_load(file.read_text()) | {"tables": {"first": table}}
    file.write_text(yaml.safe_dump(paper))
    results = made(tmp_path, check(load(tmp_path, {})))
    evidence = json.loads((results / "evidence/one.json").read_text())
    first, second = evidence["claims"][0]["comparisons"]
    by_arm = {arm["id"]: arm["metrics"] for arm in evidence["experiments"][0]["arms"]}
    # In points, against the constant.
    assert first["unit"] == "pp" and second["unit"] == "pp"
    assert first["effect"] == pytest.approx(100 * by_arm["encoder"]["test_h_accuracy"]["mean"] - 1)
    cells = evidence["tables"][0]["cells"]
    assert [cell["empty"] for cell in cells] == ["", "its runs have no test_accuracy"]


def test_an_average_that_is_an_aid_has_no_raw_figures(write: Write, tmp_path: Path) -> None:
    write("aided", text(more="\n    def averages(settings):\n        return False\n"))
    aided: Json = {"method": "aided", "ema_decay": 0.9, "split": SPLIT}
    small_paper.planned(tmp_path / "fine", {"aided": aided}, [compared("aided", "test_accuracy")])
    said = refused(tmp_path, compared("aided", "raw_test_accuracy"), {"aided": aided})
    assert "needs averaged weights (`ema_decay`) that are evaluated; 'aided' has none." in said


@pytest.mark.parametrize("known", [None, {"classes": [0, 1, 2]}], ids=["closed", "no pool"])
def test_unknown_classes_are_looked_for_where_there_are_some(tmp_path: Path, known: Json) -> None:
    split = {**SPLIT, "unlabelled": "all", "open_set": known}
    arm = {"split": split, "probes": {"open": {"name": "detection"}}}
    with pytest.raises(UserError, match=r"probes\.open: the probe detection, .*contamination"):
        small_paper.planned(tmp_path, {"one": arm})
    split["open_set"] = {"classes": [0, 1, 2], "contamination": 0.5}
    small_paper.planned(tmp_path, {"one": arm})
