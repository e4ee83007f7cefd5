"""`cyclery new`: a file to begin with that passes every check, and never takes another's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from factories import component
from factories import project as project_factory
from PIL import Image

from cyclery import methods, models
from cyclery.authoring.skeletons import KINDS
from cyclery.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "method": "my_method", "network": "my_net", "paper": "my-paper", "dataset": "my-images",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project with the folders that files are written to."""
    project_factory.write(tmp_path, project_factory.TIER, project_factory.PAPER)
    for kind in KINDS.values():
        (tmp_path / kind.path).parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


def new(root: Path, kind: str, name: str) -> Path:
    assert main(["--root", str(root), "new", kind, name]) == 0
    return root / KINDS[kind].path.format(name=name)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_where_the_file_is_and_what_comes_next(
    root: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = new(root, kind, NAMES[kind])
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: written.") and "`cyclery check" in said
    assert "{" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_there_stays(
    root: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = new(root, kind, NAMES[kind])
    path.write_text("mine")
    capsys.readouterr()
    assert main(["--root", str(root), "new", kind, NAMES[kind]]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cyclery: {path}: is there already;") and len(said.splitlines()) == 1
    assert path.read_text() == "mine"


WRONG = {
    "method": ("Mixup", "my-method", "_own", "class", "../x", "", "1st", 65 * "a"),
    "network": ("My_net", "heads-", "import"),
    "paper": ("../x", "", "1st", "report", "a b", 65 * "a"),
    "dataset": ("a/b", "prepare"),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in WRONG for name in WRONG[kind]])
def test_a_name_that_no_file_can_have_is_one_message(
    root: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    before = sorted(root.rglob("*"))
    assert main(["--root", str(root), "new", kind, name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cyclery: new {kind}: a name must be ") and "(found " in said
    assert len(said.splitlines()) == 1 and sorted(root.rglob("*")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_elsewhere_it_says_which_folder_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(["--root", str(tmp_path), "new", kind, NAMES[kind]]) == 2
    said = capsys.readouterr().err
    assert "there is no such folder" in said and "--root" in said


def test_a_new_paper_passes_all_checks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new(root, "paper", "my-paper")
    assert main(["--root", str(root), "check"]) == 0
    assert main(["--root", str(root), "plan", "my-paper.MY-PAPER-1"]) == 0
    assert " 4 " in capsys.readouterr().out


def test_a_new_method_passes_all_checks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = new(root, "method", "my_method")
    with component.written(methods, root / "methods") as write:
        write("my_method", path.read_text())
        assert main(["--root", str(root), "check", "--method", "my_method"]) == 0
    assert "the method my_method (1): all are good" in capsys.readouterr().out


def test_a_new_network_is_checked_built_and_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = new(root, "network", "my_net")
    with component.written(models, root / "models") as write:
        write("my_net", path.read_text())
        assert main(["--root", str(root), "check"]) == 0
        net = models.build("my_net", {"width": 8}, (3, 5, 4), 7)
        assert net(torch.zeros(2, 3, 5, 4)).shape == (2, 7)
        write("my_net", path.read_text().replace("class Settings", "class Other"))
        assert main(["--root", str(root), "check"]) == 2
    assert "my_net.py" in capsys.readouterr().err


def test_a_new_dataset_is_checked_and_prepared(root: Path) -> None:
    path = new(root, "dataset", "my-images")
    assert main(["--root", str(root), "check"]) == 0
    path.write_text(path.read_text().replace("[3, 32, 32]", "[1, 4, 4]"))
    for i, name in enumerate(("beetle", "moth")):
        folder = root / "images/my-images" / name
        folder.mkdir(parents=True)
        for j in range(3):
            pixels = np.full((4, 4), 10 * i + j, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{j}.png")
    assert main(["--root", str(root), "prepare", "my-images"]) == 0
    assert (root / "results/data/my-images.json").exists()


def own_images(folder: Path, sizes: dict[str, list[tuple[int, int]]], mode: str = "RGB") -> None:
    generator = np.random.default_rng(0)
    for name, shapes in sizes.items():
        (folder / name).mkdir(parents=True)
        for i, shape in enumerate(shapes):
            pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i}.png")


def declared(root: Path, folder: Path, *options: str) -> dict[str, Any]:
    command = ["--root", str(root), "new", "dataset", "birds", "--folder", str(folder), *options]
    assert main(command) == 0
    found: dict[str, Any] = yaml.safe_load((root / "config/datasets/birds.yaml").read_text())
    return found


def test_own_images_of_mixed_sizes_become_a_dataset_and_a_comparison(
    root: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("my 'birds'")
    mixed = [(40, 30), (33, 70), (64, 64)] * 20
    own_images(folder, {"crow": mixed, "owl": mixed})
    assert declared(root, folder) == {
        "title": "Birds", "shape": [3, 32, 32], "fit": "crop", "folder": str(folder),
        "licence": "not stated",
    }  # fmt: skip
    said = (root / "config/datasets/birds.yaml").read_text()
    assert "# 120 images in 2 classes, from 33 x 30 to 64 x 70 pixels." in said
    assert "`cyclery new paper NAME --dataset birds`" in capsys.readouterr().out
    assert main(["--root", str(root), "new", "paper", "mine", "--dataset", "birds"]) == 0
    paper = yaml.safe_load((root / "config/papers/mine.yaml").read_text())
    (experiment,) = paper["experiments"].values()
    base = experiment["tiers"]["smoke"]["base"]
    assert base["split"] == {"test": 24, "validation": 12, "labels": None}
    assert base["model"]["name"] == "small_cnn" and base["dataset"] == "birds"
    assert base["augment"] == [{"op": "shift", "size": 4}, {"op": "flip"}]
    assert len(experiment["arms"]) == 2
    assert main(["--root", str(root), "check"]) == 0
    assert main(["--root", str(root), "plan", "mine"]) == 0


def test_images_of_one_small_size_keep_it(root: Path, tmp_path: Path) -> None:
    own_images(root / "pictures/train", {"a": [(12, 20)] * 30, "b": [(12, 20)] * 30}, "L")
    own_images(root / "pictures/test", {"a": [(12, 20)] * 5, "b": [(12, 20)] * 5}, "L")
    found = declared(root, root / "pictures")
    assert found["shape"] == [1, 12, 20] and "fit" not in found and found["folder"] == "pictures"
    assert main(["--root", str(root), "new", "paper", "mine", "--dataset", "birds"]) == 0
    paper = yaml.safe_load((root / "config/papers/mine.yaml").read_text())
    base = paper["experiments"]["main"]["tiers"]["smoke"]["base"]
    assert base["split"] == {"test": None, "validation": 6, "labels": None}
    assert base["augment"] == [{"op": "shift", "size": 1}]
    assert main(["--root", str(root), "check"]) == 0


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [([(224, 224)], [3, 32, 32]), ([(64, 64)], [3, 64, 64]), ([(20, 40), (18, 18)], [3, 16, 16]),
     ([(3, 9), (9, 9)], [3, 4, 4])],
)  # fmt: skip
def test_shapes_suit_a_laptop(
    root: Path, tmp_path: Path, sizes: list[tuple[int, int]], shape: list[int]
) -> None:
    own_images(tmp_path / "own", {"a": sizes, "b": sizes})
    assert declared(root, tmp_path / "own")["shape"] == shape


def test_what_is_wrong_with_ones_own_images_is_told_before_anything_is_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*command: str) -> str:
        assert main(["--root", str(root), "new", *command]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    folder = tmp_path / "own"
    assert f"{folder}: there is no such folder" in refused(
        "dataset", "birds", "--folder", str(folder)
    )
    own_images(folder, {"a": [(8, 8)] * 3, "b": [(8, 8)] * 3})
    (folder / "a/9.png").write_bytes(b"")
    said = refused("dataset", "birds", "--folder", str(folder))
    assert "a/9.png: cannot be read as an image" in said
    assert not (root / "config/datasets/birds.yaml").exists()
    (folder / "a/9.png").unlink()
    declared(root, folder)
    capsys.readouterr()
    assert "birds: its 6 training images in 2 classes are too few" in refused(
        "paper", "mine", "--dataset", "birds"
    )
    assert "unknown dataset 'bird'. Did you mean 'birds'?" in refused(
        "paper", "mine", "--dataset", "bird"
    )
    assert "--dataset is for `new paper`" in refused("method", "mine", "--dataset", "birds")
    assert "--folder is for `new dataset`" in refused("paper", "mine", "--folder", "x")
    assert not (root / "config/papers/mine.yaml").exists()


def test_python_files_have_the_house_style(root: Path) -> None:
    paths = [str(new(root, kind, NAMES[kind])) for kind in KINDS if KINDS[kind].path[-3:] == ".py"]
    style = ["--config", str(ROOT / "pyproject.toml")]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *style, *paths],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
