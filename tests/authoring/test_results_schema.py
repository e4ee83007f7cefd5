"""The JSON Schemas of results: what the graph writes and what is published is as they say."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from factories import checkout, project
from factories import evidence as factory
from factories import record as make

from cyclery.authoring.results_schema import ROOTS, schemas
from cyclery.evidence import build as evidence

Json = dict[str, Any]
# What a checkout has of the published tier once it is pulled, or made.
PULLED = checkout.ROOT / "results/smoke"


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    text = schemas()[Path(f"docs/schemas/{name}.schema.json")]
    return jsonschema.Draft202012Validator(json.loads(text))


def wrong(name: str, data: Json) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in validator(name).iter_errors(data)]


def lines(folder: Path) -> list[Json]:
    files = sorted([*folder.glob("records/**/*.jsonl"), *folder.glob("lr-range/*.jsonl")])
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ROOTS)
def test_schemas_are_schemas_and_say_what_every_key_is_of(name: str) -> None:
    schema = validator(name).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    for kind, found in schema["$defs"].items():
        assert found["description"] and found["additionalProperties"] is False, kind


def test_what_a_trained_project_leaves_is_as_the_schemas_say() -> None:
    results = project.trained() / "results/smoke"
    records = lines(results)
    assert {record["kind"] for record in records} == {"run", "range"}
    assert [text for record in records for text in wrong("record", record)] == []
    stored = [json.loads(path.read_bytes())
              for path in (results.parent / "store").glob("*/*/record.json")]  # fmt: skip
    assert len(stored) >= len(records)
    assert [text for record in stored for text in wrong("record", record)] == []
    assert wrong("evidence", project.evidence(project.trained())) == []


def test_made_up_results_are_of_the_same_shape() -> None:
    assert wrong("record", make.record("k", 0, 0.9)) == []
    for part in factory.evidence(2, 6, 5):
        assert wrong("evidence", part) == []
    filed: Json = {}
    exps = [make.experiment("e", {"a": [91.0, None, 90.0], "b": [90.0, 89.0, 90.5]}, filed)]
    make.diverge(filed, make.key("e", "b", 2))
    paper = factory.PAPERS[0]
    judged = evidence.build("smoke", "p", paper, exps, [make.claim(make.comparison())], filed)
    commands = {"part": "", "report": ""}
    assert wrong("evidence", {**judged, "tables": [], "commands": commands, "sha256": ""}) == []


@pytest.mark.skipif(not PULLED.exists(), reason="no results were made or pulled in this checkout")
def test_what_was_made_or_pulled_is_as_the_schemas_say() -> None:
    for file in PULLED.glob("evidence/*.json"):
        assert wrong("evidence", json.loads(file.read_bytes())) == [], file
    # Of each file of records the first few: all take a minute.
    records = [json.loads(line) for file in sorted(PULLED.glob("*/*/*.jsonl"))
               for line in file.read_text("utf-8").splitlines()[:5]]  # fmt: skip
    assert [text for record in records for text in wrong("record", record)] == []


def test_drift_is_seen() -> None:
    record = make.record("k", 0, 0.9)
    assert "is not valid" in wrong("record", {**record, "another": 1})[0]
    assert "is not valid" in wrong("record", {k: v for k, v in record.items() if k != "views"})[0]
    part = copy.deepcopy(factory.evidence(1, 2, 3)[0])
    row = next(row for claim in part["claims"] for row in claim["comparisons"])
    row["ci95"] = [None, 0.5]  # an end that a look leaves open
    assert wrong("evidence", part) == []
    row["ci95"] = [0.5]
    del row["kind"]
    assert {text.partition(": ")[2][:30] for text in wrong("evidence", part)} == {
        "'kind' is a required property", "[0.5] is not valid under any o"
    }  # fmt: skip
