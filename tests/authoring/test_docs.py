"""Generated documents: current, readable, and as strict as one file alone allows."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from factories import checkout as checkout_factory
from factories.data import KNOWN
from factories.project import PAPER, TIER, arms, rich_paper, run

from cyclery import augment, methods, models, optim, schedules
from cyclery.authoring.docs import FILES, documents
from cyclery.config.load import read_yaml
from cyclery.config.models import Config, Paper, Tier
from cyclery.config.resolve import DEFAULTS
from cyclery.config.settings import Settings
from cyclery.data.split_settings import Split
from cyclery.models import heads

ROOT = checkout_factory.ROOT
Json = dict[str, Any]
PAGE = Path("docs/configuration.md")
FOLDERS = {"config": "config", "tier": "config/tiers", "paper": "config/papers",
           "dataset": "config/datasets"}  # fmt: skip


@cache
def generated() -> dict[Path, str]:
    # It plans every paper at every tier.
    return dict(documents(ROOT))


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    text = generated()[Path(f"workflow/schemas/{kind}.schema.yaml")]
    return jsonschema.Draft202012Validator(yaml.safe_load(text))


def errors(kind: str, data: Json) -> list[str]:
    return [error.message for error in validator(kind).iter_errors(data)]


def test_generated_documents_are_current() -> None:
    stale = [
        str(path)
        for path, text in generated().items()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run `make docs`: {stale}"


def test_docs_are_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "docs", "--check", expect=2)
    assert "run `make docs`" in capsys.readouterr().err
    run(tmp_path, "docs")
    run(tmp_path, "docs", "--check")
    (tmp_path / PAGE).write_text("drift")
    run(tmp_path, "docs", "--check", expect=2)
    assert f"not current: {PAGE};" in capsys.readouterr().err


@pytest.mark.parametrize("kind", FILES)
def test_schemas_are_schemas(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(validator(kind).schema)
    text = json.dumps(validator(kind).schema)
    assert "x-ref" not in text
    defined = validator(kind).schema.get("$defs", {}).keys()
    assert set(re.findall(r"#/\$defs/(\w+)", text)) <= set(defined)


@pytest.mark.parametrize("kind", FILES)
def test_schemas_accept_what_the_models_accept(kind: str) -> None:
    files = checkout_factory.files(f"{FOLDERS[kind]}/*.yaml")
    assert files
    for path in files:
        data = read_yaml(path)
        assert not errors(kind, data), path
        assert errors(kind, {**data, "typo": 1})


def test_schemas_accept_what_tests_use() -> None:
    assert not errors("tier", TIER) + errors("paper", PAPER) + errors("paper", rich_paper())


# What a schema refuses, it refuses alone: nothing of it needs another file.
TYPOS: dict[str, Callable[[Json, Json], object]] = {
    "key of the tier": lambda tier, paper: tier["base"].update(epoch=3),
    "key of an arm": lambda tier, paper: arms(paper)["fast"].update(learning_rate=3),
    "key of a split": lambda tier, paper: tier["base"]["split"].update(label=3),
    "key of a claim": lambda tier, paper: paper["claims"]["C-1"].update(text="x"),
    "dataset": lambda tier, paper: tier["base"].update(dataset="digitz"),
    "network": lambda tier, paper: tier["base"].update(model="resnet19"),
    "setting of a network": lambda tier, paper: tier["base"].update(
        model={"name": "wrn", "dept": 28}
    ),
    "method": lambda tier, paper: arms(paper)["fast"].update(method="supervized"),
    "setting of a method": lambda tier, paper: arms(paper)["fast"].update(
        method={"name": "supervised", "gamma_hc": 1}
    ),
    "schedule of a method": lambda tier, paper: arms(paper)["fast"].update(
        method={"name": "supervised", "temperature": {"kind": "cycle", "easy": 1}}
    ),
    "optimiser": lambda tier, paper: tier["base"].update(optimiser={"name": "adan"}),
    "setting of an optimiser": lambda tier, paper: tier["base"].update(
        optimiser={"name": "adam", "beta2": 1}
    ),
    "augmentation": lambda tier, paper: tier["base"].update(augment=[{"op": "flop"}]),
    "setting of an augmentation": lambda tier, paper: tier["base"].update(
        augment=[{"op": "shift"}]
    ),
    "kind of schedule": lambda tier, paper: tier["base"].update(lr={"kind": "cosin", "peak": 1}),
    "key of a schedule": lambda tier, paper: tier["base"].update(lr={"kind": "cosine", "peek": 1}),
    "key of a stage": lambda tier, paper: tier["base"].update(
        lr={"kind": "staged", "stages": [{"part": 1, "schedule": 1}]}
    ),
    "order of a cycle": lambda tier, paper: tier["base"].update(
        lr={"kind": "cycle", "easy": 1, "hard": 2, "order": "up"}
    ),
    "negative rate": lambda tier, paper: tier["base"].update(lr=-1),
    "negative rate inside": lambda tier, paper: tier["base"].update(
        lr={"kind": "product", "of": [1, {"kind": "cosine", "peak": -1}]}
    ),
    "no epochs": lambda tier, paper: tier["base"].update(epochs=0),
    "name that is a path": lambda tier, paper: arms(paper).update({"../x": {}}),
    "test": lambda tier, paper: paper["claims"]["C-1"]["comparisons"][0].update(test="better"),
    "control": lambda tier, paper: paper["claims"]["C-1"]["comparisons"][0].update(
        against={"bestof": ["plain"]}
    ),
}


@pytest.mark.parametrize("case", TYPOS)
def test_schemas_refuse_typos(case: str) -> None:
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    TYPOS[case](tier, paper)
    assert errors("tier", tier) or errors("paper", paper)


@pytest.mark.parametrize(
    "change",
    [{"titel": "x"}, {"folder": 3}, {"shape": [8, 8]}, {"classes": 0}, {"max_value": 256},
     {"content_sha256": "A" * 64}, {"shared": "../x"}, {"files": [{"nam": "x"}]}],
)  # fmt: skip
def test_the_schema_of_datasets_refuses_typos(change: Json) -> None:
    folder = {"title": "Mine", "shape": [1, 8, 8], "folder": "images"}
    assert not errors("dataset", folder)
    assert errors("dataset", folder | change)
    del folder["folder"]
    assert errors("dataset", folder)


def test_the_page_has_every_key_and_name() -> None:
    page = generated()[PAGE]
    keys = [field.name for kind in (Config, Split) for field in fields(kind)]
    for key in (*keys, *(key for model in (Tier, Paper, Settings) for key in model.model_fields)):
        assert f"\n| `{key}` | " in page, key
    for known in (
        schedules.kinds(), augment.ops(),
        methods.names(), models.names(), heads.names(), optim.names(),
    ):  # fmt: skip
        for name in known:
            assert f"\n### {name}\n" in page
    for name in KNOWN:
        assert f"\n| `{name}` | " in page


def test_the_page_says_defaults_and_what_may_be_chosen() -> None:
    page = generated()[PAGE]
    assert f"| `momentum` | `{DEFAULTS['momentum']}` |" in page
    assert "| `method` | `supervised` |" in page
    assert "| `validation` | `0` |" in page
    for key in ("dataset", "model", "lr", "batch", "epochs"):
        assert f"| `{key}` | required |" in page
    assert "arithmetic of the network: `fp32`, `bf16` |" in page
    assert "| `temperature` | `1.0` | divides the training logits (> 0); may follow a" in page
    assert "Undefined" not in page and "MISSING" not in page and "``" not in page


def test_the_links_of_the_page_lead_somewhere() -> None:
    page = generated()[PAGE]
    titles = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    links = re.findall(r"\]\(#([^)]*)\)", page)
    assert links and set(links) <= set(anchors)
    assert not [link for link in set(links) if anchors.count(link) > 1]
    for row in (line for line in page.splitlines() if line.startswith("| ")):
        assert len(re.findall(r"(?<!\\)\|", row)) in (4, 6, 8), row
