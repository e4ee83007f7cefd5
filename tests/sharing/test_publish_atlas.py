"""Publish the atlas: one page that a plain pull brings, and that a clone makes again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from factories.graph import ROOT
from factories.sharing import Repository

from cyclery.common.errors import UserError
from cyclery.sharing import inside
from cyclery.sharing.publish_atlas import publish_atlas

pytest.importorskip("dvc", reason="DVC is not installed")
# Each takes seconds: Snakemake and DVC are run as users run them.
pytestmark = pytest.mark.slow

PAGE = "results/published/atlas/index.html"


@pytest.fixture
def publisher(another: Repository) -> Repository:
    """A publisher of a tier and of the atlas, which is not made yet."""
    declared = yaml.safe_load((another.root / "dvc.yaml").read_text())
    declared["stages"]["atlas"] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["atlas"]
    another.write("dvc.yaml", declared)
    return another


def test_a_clone_has_the_page_and_makes_the_same(publisher: Repository, tmp_path: Path) -> None:
    said = publisher.cyclery("publish", "--atlas", expect=2)
    assert "the atlas is not finished (" in said and "`snakemake --cores all atlas`" in said
    assert not (publisher.root / PAGE).exists()

    publisher.snakemake("atlas")
    said = publisher.cyclery("publish", "--atlas")
    assert "git add dvc.lock results/published/atlas published" in said
    page = (publisher.root / PAGE).read_bytes()
    assert page == (publisher.root / "results/atlas/index.html").read_bytes()
    publisher.commit("the atlas")
    assert PAGE not in publisher.git("ls-files")

    clone = publisher.clone(tmp_path / "clone")
    clone.dvc("pull")
    assert (clone.root / PAGE).read_bytes() == page
    clone.snakemake("atlas")
    assert (clone.root / "results/atlas/index.html").read_bytes() == page
    assert clone.trained() == 0


def test_an_old_page_is_not_published_as_if_it_were_new(publisher: Repository) -> None:
    publisher.snakemake("atlas")
    publisher.cyclery("publish", "--atlas")
    before = (publisher.root / PAGE).read_bytes()
    template = publisher.root / "src/cyclery/report/templates/style.css.j2"
    original = template.read_text()
    template.write_text(original + "\n/* of another look */\n")
    said = publisher.cyclery("publish", "--atlas", expect=2)
    assert "the atlas is not finished (1 atlas to do)" in said
    template.write_text(original)
    config = publisher.root / "config/papers/tiny.yaml"
    config.write_text(config.read_text().replace("lr: 0.2", "lr: 0.3"))
    assert "is not finished" in publisher.cyclery("publish", "--atlas", expect=2)
    assert (publisher.root / PAGE).read_bytes() == before


def test_what_does_not_fit_beside_the_tiers_is_refused(
    publisher: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.snakemake("atlas")
    others = inside.bytes_of_others(publisher.root, "atlas")
    size = (publisher.root / "results/atlas/index.html").stat().st_size
    monkeypatch.setattr(inside, "MOST_INSIDE", others + size - 1)
    with pytest.raises(UserError, match="the atlas does not fit into the remote inside"):
        publish_atlas(publisher.root, {})
    assert not (publisher.root / PAGE).exists()
    monkeypatch.setattr(inside, "MOST_INSIDE", others + size)
    publish_atlas(publisher.root, {})
    # A tier has to fit beside it.
    assert inside.bytes_of_others(publisher.root, "smoke") == size


def test_a_project_that_declares_no_atlas_is_told(another: Repository) -> None:
    said = another.cyclery("publish", "--atlas", expect=2)
    assert "there is no 'atlas'; add it to share the atlas" in said and said.count("\n") == 1
