"""JSON Schemas of records, evidence and replications, for readers without this package.

They are made of the types that trainer, judge and report are held to (`cyclery.records`); what
stands under a key there is its description.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from typing_extensions import get_original_bases, is_typeddict

from cyclery.records.evidence import Evidence
from cyclery.records.record import Record
from cyclery.records.replication import Replication

FOLDER = Path("docs/schemas")
# Each in a list, for a type with keys takes no configuration from outside; and what the schema says
# at its top.
ROOTS: Mapping[str, tuple[Any, str]] = {
    "record": (
        list[Record],
        "A run's record: `record.json` in the run store, and each line of a file of records.",
    ),
    "evidence": (list[Evidence], "The evidence of a paper, an experiment or a claim."),
    "replication": (list[Replication], "A tier on fresh seeds, beside what it was."),
}
_END = {"anyOf": [{"type": "number"}, {"type": "null"}]}


class _Generator(GenerateJsonSchema):
    """Pydantic's, with what stands under the keys as descriptions, and with our intervals."""

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().typed_dict_schema(schema)
        for key, text in _docs(schema["cls"]).items():
            found["properties"][key]["description"] = text
        return found

    def tuple_schema(self, schema: Any) -> JsonSchemaValue:
        # The only tuples are intervals; an end that a look leaves open is null.
        return {"type": "array", "prefixItems": [_END, _END], "minItems": 2, "maxItems": 2}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas() -> dict[Path, str]:
    """Return the text of every schema by its path below the project's root."""
    return {FOLDER / f"{name}.schema.json": _text(name) for name in ROOTS}


def _text(name: str) -> str:
    kind, says = ROOTS[name]
    adapter = TypeAdapter(kind, config=ConfigDict(extra="forbid"))
    made = adapter.json_schema(schema_generator=_Generator)
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": f"Cyclery: {name}",
        "description": says,
        **made["items"],
        "$defs": made["$defs"],
    }
    return json.dumps(schema, indent=1) + "\n"


def _docs(kind: type) -> dict[str, str]:
    """Return what stands under the keys of a type, and of those that it extends."""
    found: dict[str, str] = {}
    for base in get_original_bases(kind):
        if is_typeddict(base):
            found |= _docs(base)
    [declared] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declared, ast.ClassDef)
    for key, text in pairwise(declared.body):
        if (
            isinstance(key, ast.AnnAssign)
            and isinstance(key.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[key.target.id] = " ".join(str(text.value.value).replace("``", "`").split())
    return found
