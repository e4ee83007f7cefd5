"""What bad configuration gets: one clear message, exit code 2, and nothing run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyclery.cli import main

Json = dict[str, Any]

TIER: Json = {
    "title": "tiny",
    "seeds": 2,
    "shard_by": "paper",
    "base": {
        "dataset": "digits",
        "split": {"test": 200, "validation": 100, "labels": 100},
        "model": "bn_mlp",
        "lr": 0.1,
        "batch": 50,
        "epochs": 5,
    },
}
PAPER: Json = {
    "title": "A paper",
    "authors": "-",
    "year": 2026,
    "summary": "-",
    "experiments": {
        "main": {
            "title": "main",
            "tiers": {"smoke": {}},
            "arms": {"plain": {}, "fast": {"lr": 0.2}},
        }
    },
    "claims": {
        "C-1": {
            "statement": "-",
            "comparisons": [{"experiment": "main", "arm": "fast", "against": "plain"}],
        }
    },
}


def arms(paper: Json) -> Json:
    found: Json = paper["experiments"]["main"]["arms"]
    return found


def comparison(paper: Json) -> Json:
    found: Json = paper["claims"]["C-1"]["comparisons"][0]
    return found


def write(root: Path, tier: Json, paper: Json, config: Json | None = None) -> None:
    files = {
        "config.yaml": config or {"tier": "smoke"},
        "tiers/smoke.yaml": tier,
        "papers/one.yaml": paper,
    }
    for name, data in files.items():
        path = root / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data, sort_keys=False))


def refused(root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the one message that `cyclery check` refuses the configuration with."""
    assert main(["--root", str(root), *options, "check"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    assert said.err.startswith("cyclery: ")
    return said.err.strip()


Change = Callable[[Json, Json], object]
CASES: dict[str, tuple[Change, list[str]]] = {
    "unknown key in a tier": (
        lambda tier, paper: tier["base"].update(epoch=3),
        ["smoke.yaml: base: unknown key 'epoch'", "Did you mean 'epochs'?", "Allowed:"],
    ),
    "unknown key in an arm": (
        lambda tier, paper: arms(paper)["fast"].update(learning_rate=1),
        ["one.yaml: experiments.main.arms.fast: unknown key 'learning_rate'", "Allowed:"],
    ),
    "wrong type": (
        lambda tier, paper: tier.update(seeds="many"),
        ["smoke.yaml: seeds:", "'many'"],
    ),
    "unknown method": (
        lambda tier, paper: arms(paper)["fast"].update(method="supervized"),
        ["one.yaml", "one/main/fast.method", "'supervized'", "Did you mean 'supervised'?"],
    ),
    "unknown setting of a method": (
        lambda tier, paper: arms(paper)["fast"].update(method={"name": "supervised", "temp": 2}),
        ["one/main/fast.method: unknown key 'temp'", "label_smoothing"],
    ),
    "unknown dataset": (
        lambda tier, paper: tier["base"].update(dataset="digitz"),
        ["one/main/plain.dataset", "'digitz'", "Did you mean 'digits'?"],
    ),
    "unknown network": (
        lambda tier, paper: tier["base"].update(model="resnet19"),
        ["one/main/plain.model", "'resnet19'", "Did you mean 'resnet18'?"],
    ),
    "unknown optimiser": (
        lambda tier, paper: arms(paper)["fast"].update(optimiser="adan"),
        ["one/main/fast.optimiser", "'adan'", "Did you mean 'adam'?"],
    ),
    "unknown augmentation": (
        lambda tier, paper: arms(paper)["fast"].update(augment=[{"op": "flop"}]),
        ["one/main/fast.augment[0]", "'flop'", "Did you mean 'flip'?"],
    ),
    "unknown schedule": (
        lambda tier, paper: arms(paper)["fast"].update(lr={"kind": "cosin", "peak": 0.1}),
        ["experiments.main.arms.fast.lr", "'cosin'", "cosine"],
    ),
    "key of a schedule missing": (
        lambda tier, paper: arms(paper)["fast"].update(lr={"kind": "cosine"}),
        ["experiments.main.arms.fast.lr", "peak", "missing"],
    ),
    "claim about an arm that does not exist": (
        lambda tier, paper: comparison(paper).update(arm="fasst"),
        ["claims.C-1.comparisons.0.arm 'fasst' does not exist in main", "Did you mean 'fast'?"],
    ),
    "claim about an experiment that does not exist": (
        lambda tier, paper: comparison(paper).update(experiment="mian"),
        ["claims.C-1.comparisons.0", "'mian'", "Did you mean 'main'?"],
    ),
    "unknown metric": (
        lambda tier, paper: comparison(paper).update(metric="test_acuracy"),
        ["'test_acuracy'", "Did you mean 'test_accuracy'?"],
    ),
    "a curve outside the run": (
        lambda tier, paper: comparison(paper).update(metric="test_accuracy@1.5"),
        ["'test_accuracy@1.5'", "from 0 to 1"],
    ),
    "a control chosen on the test set": (
        lambda tier, paper: comparison(paper).update(
            against={"best_of": ["plain"], "by": "test_accuracy"}
        ),
        ["would choose on the test set", "val_accuracy"],
    ),
    "equivalence without a margin": (
        lambda tier, paper: comparison(paper).update(test="equivalence"),
        ["claims.C-1.comparisons.0", "needs a margin above 0"],
    ),
    "unequal budgets": (
        lambda tier, paper: arms(paper)["fast"].update(epochs=10),
        ["claims.C-1.comparisons.0", "different numbers of samples", "fast 1000", "plain 500"],
    ),
    "cycle of parents": (
        lambda tier, paper: (
            arms(paper)["fast"].update(parents={"teacher": "plain"}),
            arms(paper)["plain"].update(parents={"teacher": "fast"}),
        ),
        ["parents", "cannot descend from itself", "one/main/plain -> one/main/fast"],
    ),
    "unknown parent": (
        lambda tier, paper: arms(paper)["fast"].update(parents={"teacher": "main/plane"}),
        ["one/main/fast.parents.teacher", "'plane'", "Did you mean 'plain'?"],
    ),
    "init that is no parent": (
        lambda tier, paper: arms(paper)["fast"].update(init="teacher"),
        ["one/main/fast.init", "'teacher' is not a parent"],
    ),
    "a batch larger than the split": (
        lambda tier, paper: tier["base"].update(batch=128),
        ["one/main/plain.batch", "128", "100 training samples"],
    ),
    "no epochs": (
        lambda tier, paper: tier["base"].update(epochs=0),
        ["smoke.yaml: base.epochs", "greater than or equal to 1", "0"],
    ),
    "more labels than there are": (
        lambda tier, paper: tier["base"]["split"].update(labels=1600),
        ["split.labels", "1600", "1497"],
    ),
    "more labels of a class than there are": (
        lambda tier, paper: tier["base"]["split"].update(labels=None, per_class=180),
        ["split.per_class", "180"],
    ),
    "negative rate": (
        lambda tier, paper: arms(paper)["fast"].update(lr=-0.1),
        ["experiments.main.arms.fast.lr", "-0.1", ">= 0"],
    ),
    "negative rate inside a schedule": (
        lambda tier, paper: arms(paper)["fast"].update(
            weight_decay={"kind": "cycle", "easy": -1e-4, "hard": 1e-3}
        ),
        ["experiments.main.arms.fast.weight_decay.easy", "-0.0001"],
    ),
    "not a number": (
        lambda tier, paper: arms(paper)["fast"].update(lr=float("nan")),
        ["experiments.main.arms.fast.lr", "nan"],
    ),
    "lr range without a range test": (
        lambda tier, paper: arms(paper)["fast"].update(lr="range"),
        ["one/main/fast.lr", "declares none", "`range`"],
    ),
    "a range test that falls": (
        lambda tier, paper: paper["experiments"]["main"].update(range={"low": 3, "high": 1}),
        ["experiments.main.range", "low = 3", "must be below high = 1"],
    ),
    "a tier that does not exist": (
        lambda tier, paper: paper["experiments"]["main"]["tiers"].update(dask={}),
        ["experiments.main.tiers.dask", "unknown tier", "Tiers: smoke"],
    ),
    "an arm of a tier that does not exist": (
        lambda tier, paper: paper["experiments"]["main"]["tiers"].update(smoke={"arms": ["plan"]}),
        ["experiments.main.tiers.smoke", "'plan'", "Did you mean 'plain'?"],
    ),
    "an arm name that is a path": (
        lambda tier, paper: arms(paper).update({"../../etc": {}}),
        ["experiments.main.arms", "../../etc"],
    ),
    "an experiment named like a claim": (
        lambda tier, paper: paper["experiments"].update(
            {"C-1": copy.deepcopy(paper["experiments"]["main"])}
        ),
        ["claims.C-1", "an experiment has the same name"],
    ),
    "a claim without a test or a reason": (
        lambda tier, paper: paper["claims"].update({"C-2": {"statement": "-"}}),
        ["claims.C-2", "not_run"],
    ),
    "randaugment without a magnitude": (
        lambda tier, paper: arms(paper)["fast"].update(augment=[{"op": "randaugment"}]),
        ["one/main/fast.augment", "magnitude"],
    ),
    "tuning what is not set": (
        lambda tier, paper: (
            tier.update(tuning=True),
            paper["experiments"]["main"].update(tune={"clip_norm": [0.5, 1]}),
        ),
        ["one/main/plain.tune", "'clip_norm' is not set"],
    ),
    "something required missing": (
        lambda tier, paper: tier["base"].pop("lr"),
        ["one/main/plain", "lr", "not set"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, wanted = CASES[case]
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    change(tier, paper)
    write(tmp_path, tier, paper)
    said = refused(tmp_path, capsys)
    for part in wanted:
        assert part in said
    # One mistake, one message; a tier's mistake may show in both arms, but is said once.
    assert len(said.splitlines()) == 1, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config"]


def test_the_configuration_itself_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    assert main(["--root", str(tmp_path), "check"]) == 0
    assert "1 papers, 2 arms at tier smoke" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("title: [", "one.yaml, line"),
        ("- a\n- b\n", "expected keys and values, found list"),
        ("title: a\ntitle: b\n", "'title' stands twice, on lines 1 and 2"),
        ("", "expected keys and values"),
        ("title: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_files_that_are_not_yaml(
    text: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_text(text)
    assert wanted in refused(tmp_path, capsys)


def test_a_file_that_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_bytes(b"title: \xff\xfe")
    assert "not UTF-8" in refused(tmp_path, capsys)


def test_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "config.yaml: there is no such file" in refused(tmp_path, capsys)
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").unlink()
    assert "holds no paper" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("tier=smok", "Did you mean 'smoke'?"),
        ("papers=[two]", "unknown paper 'two'"),
        ("seeds=0", "seeds"),
        ("sedes=3", "unknown key 'sedes'. Did you mean 'seeds'?"),
        ("seeds", "write KEY=VALUE"),
        ("device=gpu", "device"),
    ],
)
def test_overrides(
    option: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    assert wanted in refused(tmp_path, capsys, "--set", option)


def test_unknown_shards_and_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    root = ["--root", str(tmp_path)]
    out = str(tmp_path / "out.jsonl")
    for command, wanted in (
        (["train", "one/L7-0000", "--output", out], "no shard 'one/L7-0000'"),
        (["train", "two/L0-0000", "--output", out], "unknown paper 'two'"),
        (["plan", "one.C-9"], "no experiment or claim 'C-9'"),
        (["prepare", "digitz"], "Did you mean 'digits'?"),
    ):
        assert main([*root, *command]) == 2
        assert wanted in capsys.readouterr().err
