"""The counts in the README: those of the published metrics, tier by tier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyclery.authoring import headline
from cyclery.common.errors import UserError

COUNTS = {"claims": 10, "reproduced": 2, "contradicted": 1, "partly": 1, "inconclusive": 4,
          "not run": 2}  # fmt: skip


def publish(root: Path, tier: str, text: str) -> None:
    folder = root / headline.PUBLISHED / tier
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(text)


def test_each_published_tier_has_a_line_the_smallest_first(tmp_path: Path) -> None:
    for tier in ("paper", "laptop", "mine", "smoke"):
        publish(tmp_path, tier, json.dumps({"all": COUNTS, "papers": {"a": {}, "b": {}}}))
    (tmp_path / headline.PUBLISHED / "bench").mkdir()
    (tmp_path / "README.md").write_text(f"Before\n{headline.BEGIN}\nold\n{headline.END}\nafter\n")
    page = headline.page(tmp_path)
    assert page.startswith(f"Before\n{headline.BEGIN}\n\n| published tier")
    assert page.endswith(f"|\n\n{headline.END}\nafter\n") and "old" not in page
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [line.split()[1] for line in lines] == ["smoke", "laptop", "paper", "mine"]
    assert lines[0] == "| smoke | 2 | 10 | 8 | 4 (50 %) | 2 | 1 | 1 | 4 |"


@pytest.mark.parametrize("text", ["{", "[]", '{"all": {}, "papers": {}}', '{"papers": {}}'])
def test_metrics_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    publish(tmp_path, "smoke", text)
    with pytest.raises(UserError, match=r"smoke/metrics.json: not the metrics of a publication"):
        headline.section(tmp_path / headline.PUBLISHED)


def test_a_readme_without_its_marks_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(UserError, match=r"README.md: the marks .* are missing"):
        headline.page(tmp_path)
