"""One thing is one file: each kind is added to a copy of the checkout, and used up to a verdict."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from factories import checkout
from factories import data as data_factory

from cyclery.records.readers import read_evidence

PACKAGE = Path("src/cyclery")
FILES = {
    PACKAGE / "methods/brier.py": '''
        """The squared error of probabilities (Brier 1950)."""

        from __future__ import annotations

        from dataclasses import dataclass, field

        from cyclery.common.lazy import F, torch
        from cyclery.schedules import Quantity

        VERSION = 1
        TITLE = "Brier score"


        @dataclass(frozen=True)
        class Settings:
            """Settings of the loss."""

            scale: Quantity = field(default=1.0, metadata={"doc": "factor", "above": 0.0})


        def step(models, batch, row, settings, generator):
            """Return the loss, and the entropy of the predictions."""
            p = models["main"](batch.x).float().softmax(1)
            error = (p - F.one_hot(batch.y, p.shape[1])).square().sum(1).mean()
            return row["scale"] * error, {"entropy": -torch.special.entr(p).sum(1).mean()}
        ''',
    PACKAGE / "models/one_layer.py": '''
        """One hidden layer."""

        from __future__ import annotations

        from dataclasses import dataclass, field
        from math import prod

        from cyclery.models import ModelSettings


        @dataclass(frozen=True)
        class Settings(ModelSettings):
            """One hidden layer with ReLU."""

            units: int = field(default=16, metadata={"doc": "its width", "low": 1})

            @property
            def batch_norm(self):
                """Return False."""
                return False


        def build(settings, shape, classes):
            """Return the network."""
            from torch import nn

            from cyclery.models._classifier import Classifier

            net = Classifier(settings.units, classes)
            hidden = nn.Linear(prod(shape), settings.units)
            net.body = nn.Sequential(nn.Flatten(), hidden, nn.ReLU())
            return net
        ''',
    PACKAGE / "models/heads/scaled.py": '''
        """A linear head whose logits are scaled."""

        from __future__ import annotations

        from dataclasses import dataclass, field


        @dataclass(frozen=True)
        class Settings:
            """Two layers without anything between them."""

            width: int = field(default=8, metadata={"doc": "units between the two", "low": 1})


        def build(settings, width, classes):
            """Return the head, [B, width] -> [B, classes]."""
            from torch import nn

            first = nn.Linear(width, settings.width)
            return nn.Sequential(first, nn.Linear(settings.width, classes))
        ''',
    PACKAGE / "optim/sign.py": '''
        """Signs of gradients (signSGD, Bernstein et al. 2018)."""

        from __future__ import annotations

        from dataclasses import dataclass, field

        from cyclery.common.lazy import torch
        from cyclery.optim.flat.optimiser import Optimiser


        @dataclass(frozen=True)
        class Settings:
            """Signs."""

            scale: float = field(default=0.1, metadata={"doc": "factor on each", "above": 0})


        class Rule(Optimiser):
            """p -= lr scale sign(g)."""

            def _update(self, part, row, scalars):
                part.p.addcmul_(torch.sign(part.g).mul_(self.settings.scale), row["lr"], value=-1)
        ''',
    PACKAGE / "augment/dim.py": '''
        """Darker images."""

        from __future__ import annotations

        from dataclasses import dataclass, field

        from cyclery.augment import Images, Op, Stage


        @dataclass(frozen=True)
        class Settings(Op):
            """Multiply an image by a random factor."""

            least: float = field(default=0.5, metadata={"doc": "factor", "above": 0.0, "high": 1.0})

            @property
            def columns(self):
                """Return 1: the factor."""
                return 1

            def stage(self, images: Images) -> Stage:
                """Return the product."""
                return Dim(self.least)


        class Dim(Stage):
            """A product."""

            def __init__(self, least):
                self.least = least

            def __call__(self, x, u, magnitude):
                """Return darker images as floats."""
                return x.float() * (self.least + (1 - self.least) * u[:, 0])[:, None, None, None]
        ''',
    PACKAGE / "schedules/sawtooth.py": '''
        """A sawtooth."""

        from __future__ import annotations

        from dataclasses import dataclass, field

        from cyclery.schedules import Clock, Column, Number, Schedule, amount


        @dataclass(frozen=True, kw_only=True)
        class Settings(Schedule):
            """From high to low in each epoch."""

            high: Number = field(metadata=amount("value at the first update of an epoch"))
            low: Number = field(metadata=amount("value towards which it falls"))

            def column(self, clock: Clock, seed: int) -> Column:
                """Return a value for each update."""
                return self.high + (self.low - self.high) * (clock.t / clock.pace % 1)
        ''',
    PACKAGE / "records/metrics/hardest_class.py": '''
        """Accuracy of the class with the fewest right answers."""

        from __future__ import annotations

        from cyclery.records.metrics._units import POINTS

        UNIT = POINTS
        BETTER = "larger"


        def read(record):
            """Return the smallest accuracy of a class; None where the record has none."""
            found = (record.get("final") or {}).get("test_class_accuracy")
            return min(found) if found else None
        ''',
    Path("config/datasets/shades.yaml"): """
        title: Shades of grey
        shape: [1, 8, 8]
        folder: images/shades
        licence: made by a test
        """,
    Path("config/papers/mine.yaml"): """
        title: Mine
        authors: Nobody
        year: 2026
        summary: Everything that it uses was added by one file.
        base:
          dataset: shades
          model: one_layer
          head: {name: scaled, width: 6}
          optimiser: sign
          lr: {kind: sawtooth, high: 0.1, low: 0.02}
          augment: [{op: dim, least: 0.6}]
        experiments:
          main:
            title: Brier's score against cross-entropy
            tiers: {smoke: {}}
            arms:
              plain: {role: baseline}
              brier: {role: method, method: {name: brier, scale: {kind: linear, start: 1, end: 2}}}
        claims:
          MINE-1:
            statement: Brier's score helps the hardest class.
            comparisons:
              - {experiment: main, arm: brier, against: plain, metric: hardest_class}
        """,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout to which every file was added, run to its report."""
    root = tmp_path_factory.mktemp("checkout")
    checkout.copy(root, "src", "workflow", "profiles", "Snakefile", ".test", "config/datasets")
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(dedent(text).lstrip())
    data_factory.class_folders(
        root / "images/shades", (8, 8), {"dark": 200, "grey": 200, "light": 200}
    )
    # The toy's tier: digits and its network give way to the paper's own.
    (root / ".test/config/papers/toy.yaml").unlink()
    for path in (root / ".test/config").rglob("*.yaml"):
        target = root / "config" / path.relative_to(root / ".test/config")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    run(root, "snakemake", "--cores", "2")
    return root


def run(root: Path, module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_of_them_lead_to_a_verdict_in_the_report(project: Path) -> None:
    evidence = read_evidence(project / "results/smoke/evidence/mine.json")
    [claim] = evidence["claims"]
    assert claim["verdict"] not in ("not run", "")
    [row] = claim["comparisons"]
    assert row["n"] == 2 and row["effect"] is not None
    page = (project / "results/smoke/report/index.html").read_text()
    assert "hardest class" in page and "shades" in page


def test_runs_have_what_was_added(project: Path) -> None:
    with (project / "results/smoke/tables/mine.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["arm"] for row in rows} == {"plain", "brier"}
    assert all(row["status"] == "done" for row in rows)
    said = run(project, "cyclery", "plan", "mine")
    assert "mine" in said


def test_their_names_are_in_reference_and_schemas(project: Path) -> None:
    run(project, "cyclery", "docs")
    page = (project / "docs/configuration.md").read_text()
    for path in FILES:
        if path.parts[0] == "src":
            assert f"{path.stem}" in page, path
    schema = (project / "workflow/schemas/paper.schema.yaml").read_text()
    for name in ("one_layer", "scaled", "sign", "dim", "sawtooth", "brier"):
        assert f"const: {name}\n" in schema, name
