"""Outliers of an open set from another dataset: sizes, draws, images, keys, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.batches import seen
from factories.data import CIFAR10, DIGITS, FASHION_MNIST, KNOWN, replace, small_fashion
from factories.plan import keys, planned

from cyclery.common.errors import UserError
from cyclery.data import outliers
from cyclery.data.prepare import open_prepared, prepare
from cyclery.data.sizes import counts
from cyclery.data.split_settings import canonical, parse
from cyclery.data.splits import split, training_labels
from cyclery.engine.datasets import Datasets
from cyclery.engine.lookup import Lookup
from cyclery.engine.run import Run
from cyclery.evidence.settings_text import describe
from cyclery.methods import Stream
from cyclery.plan.snakemake_api import Graph

Json = dict[str, Any]
EVERY = list(range(10))
FAR: Json = {"classes": EVERY, "outliers": {"dataset": "digits"}}
WANTED: Json = {"per_class": 4, "unlabelled": "rest",
                "open_set": {**FAR, "pool": 1000, "contamination": 0.8}}  # fmt: skip


def resolved(wanted: Json, dataset: Any = FASHION_MNIST, others: Any = KNOWN) -> Json:
    return canonical(parse(wanted), dataset, others)


# Planning


def test_resolved_settings_pin_the_other_dataset() -> None:
    found = resolved(WANTED)["open_set"]["outliers"]
    assert found == {"dataset": "digits", "identity": DIGITS.identity, "images": 1797}
    assert parse(resolved(WANTED)) == parse(resolved(WANTED))
    assert "outliers" not in resolved({**WANTED, "open_set": {"classes": [1, 2]}})["open_set"]


def test_sizes_are_those_that_are_asked() -> None:
    assert counts(FASHION_MNIST, resolved(WANTED)) == {
        "train": 40, "validation": 0, "test": 10_000, "unlabelled": 1000,
    }  # fmt: skip
    everything = {**WANTED, "open_set": FAR}
    assert counts(FASHION_MNIST, resolved(everything))["unlabelled"] == 60_000 - 40 + 1797


@pytest.mark.parametrize(
    ("open_set", "message"),
    [
        (
            {"outliers": {"dataset": "digit"}},
            r"outliers\.dataset: unknown dataset 'digit'. Did you",
        ),
        ({"outliers": {"dataset": "fashion-mnist"}}, r"outliers\.dataset: must be another one"),
        (
            {"outliers": {"dataset": "digits", "images": 9}},
            r"outliers: takes `dataset` alone \(found im",
        ),
        ({"outliers": "digits"}, r"outliers: must name a dataset, as in .* \(found 'digits'\)"),
        ({"outliers": {"name": "digits"}}, r"outliers: must name a dataset.*found {'name'"),
        ({"outliers": {"dataset": "digits", "size": 8}}, r"outliers: must name a dataset"),
        ({"outliers": None}, r"classes: must leave out at least one of the 10 classes"),
    ],
)
def test_what_names_no_other_dataset_is_refused(open_set: Json, message: str) -> None:
    with pytest.raises(UserError, match=r"split\.open_set\." + message):
        resolved({"unlabelled": "rest", "open_set": {"classes": EVERY, **open_set}})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 10), r"only where both are square \(found images of 1 x 8 x 10 among those of 1 x"),
        ((2, 28, 28), r"as many channels, or 1 and 3, .* \(found images of 2 x 28 x 28 among"),
    ],
)
def test_images_that_cannot_be_made_alike_are_refused(shape: Any, message: str) -> None:
    others = {"digits": replace(DIGITS, shape=shape)}
    with pytest.raises(UserError, match=r"split\.open_set\.outliers\.dataset: .*" + message):
        resolved(WANTED, others=others)


def test_more_than_there_are_is_refused_when_planned() -> None:
    asked = {**WANTED, "open_set": {**FAR, "pool": 3000, "contamination": 0.8}}
    with pytest.raises(
        UserError, match="at most 1797 samples of the dataset digits, all there"
    ) as e:
        counts(FASHION_MNIST, resolved(asked))
    assert str(e.value).startswith("split.open_set.contamination: ")


def test_keys_change_with_the_other_dataset_and_only_where_its_images_are(tmp_path: Path) -> None:
    def of(**open_set: Any) -> dict[str, list[str]]:
        def change(tier: Json, paper: Json) -> None:
            tier["base"]["split"] |= {"unlabelled": "rest", "open_set": open_set}
            paper["experiments"]["main"]["arms"]["fast"]["method"] = "pseudo_label"

        return keys(planned(tmp_path, change))

    size = {"pool": 300, "contamination": 0.5}
    known = {"classes": [0, 1, 2, 3, 4, 5]}
    near, far, other = (
        of(**known, **size, **more)
        for more in (
            {},
            {"outliers": {"dataset": "fashion-mnist"}},
            {"outliers": {"dataset": "cifar10"}},
        )
    )
    assert near["one/main/plain"] == far["one/main/plain"] == other["one/main/plain"]
    fast = [tuple(each["one/main/fast"]) for each in (near, far, other)]
    assert len(set(fast)) == 3


def test_a_supervised_arm_may_know_every_class(tmp_path: Path) -> None:
    """Beside arms whose pool has other images; the pool is nothing to it."""

    def change(tier: Json, paper: Json) -> None:
        given = {"classes": EVERY, "outliers": {"dataset": "cifar10"}, "contamination": 0.5}
        tier["base"]["split"] |= {"unlabelled": "rest", "open_set": given}
        paper["experiments"]["main"]["arms"]["fast"]["method"] = "pseudo_label"

    plan = planned(tmp_path, change)
    arms = {name: plan.arm("one", "main", name) for name in ("plain", "fast")}
    assert arms["plain"].settings["split"]["open_set"] == {
        "classes": EVERY, "pool": None, "contamination": None,
    }  # fmt: skip
    words = describe([arms["fast"]])["split"]
    assert "50 % of these images of cifar10" in words
    graph = Graph(plan, {})
    assert graph.manifests("one") == ["results/data/cifar10.json", "results/data/digits.json"]


# Drawing


HOST = np.repeat(np.arange(10), 30)
ROWS = np.concatenate([HOST, HOST[::3], np.full(1797, -1)])


def drawn(seed: int = 0, **open_set: Any) -> dict[str, np.ndarray]:
    given = {**FAR, "pool": 200, "contamination": 0.8, **open_set}
    wanted = resolved({"per_class": 4, "validation": 20, "unlabelled": "rest", "open_set": given})
    return split(ROWS, 300, 10, wanted, seed)


def test_the_pool_holds_the_share_of_the_other_images() -> None:
    found = drawn()
    others = found["unlabelled"] >= 400
    assert (others.sum(), (~others).sum()) == (160, 40)
    assert (found["unlabelled"][~others] < 300).all()
    assert len(np.unique(found["unlabelled"])) == 200
    assert found["test"].tolist() == list(range(300, 400))
    for part in ("train", "validation", "test"):
        assert not np.intersect1d(found[part], found["unlabelled"]).size


def test_the_draw_is_of_the_seed_and_leaves_the_own_images_alone() -> None:
    one, again, other = drawn(1), drawn(1), drawn(2)
    far = [found["unlabelled"][found["unlabelled"] >= 400] for found in (one, again, other)]
    assert far[0].tolist() == again["unlabelled"][again["unlabelled"] >= 400].tolist()
    assert far[0].tolist() != far[2].tolist()
    less = drawn(1, pool=100)["unlabelled"]
    assert set(less[less >= 400]) < set(far[0]), "a smaller pool is a part of a larger one"
    # As where no other dataset is near.
    plain = {"per_class": 4, "validation": 20, "unlabelled": "rest", "unlabelled_pool": 40}
    without = split(ROWS[:400], 300, 10, plain, 1)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(one[part], without[part])
    np.testing.assert_array_equal(one["unlabelled"][one["unlabelled"] < 400], without["unlabelled"])


def test_further_classes_of_the_dataset_are_left_out() -> None:
    found = drawn(classes=[1, 4, 7])["unlabelled"]
    assert set(HOST[found[found < 300]]) == {1, 4, 7}


def test_the_other_images_have_no_label() -> None:
    for classes, numbers in (
        (EVERY, HOST),
        ([1, 4, 7], [{1: 0, 4: 1, 7: 2}.get(y, -1) for y in HOST]),
    ):
        wanted = resolved({"per_class": 4, "open_set": {**FAR, "classes": classes},
                           "unlabelled": "rest"})  # fmt: skip
        ids = split(ROWS, 300, 10, wanted, 0)
        found = training_labels(ROWS, 300, 10, wanted, 0, ids)
        assert found[:300].tolist() == list(numbers)
        assert set(found[400:]) == {-1}


def test_rows_that_are_no_outliers_are_an_error() -> None:
    wanted = resolved({"unlabelled": "rest", "per_class": 4, "open_set": FAR})
    with pytest.raises(ValueError, match="the last 1797 of 2197 rows are no outliers"):
        split(np.concatenate([HOST, HOST[:100], np.arange(1797) % 10]), 300, 10, wanted, 0)


# Images


def test_images_get_the_form_of_the_dataset() -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(17, (5, 1, 8, 8), generator=g, dtype=torch.uint8)
    found = outliers.fitted(images, 16, {"shape": [3, 28, 28], "max_value": 255})
    assert found.dtype == torch.uint8 and found.shape == (5, 3, 28, 28)
    assert (found == found[:, :1]).all()
    levels = (images.double() * 255 / 16).round()
    expected = F.interpolate(levels, (28, 28), mode="bilinear", antialias=True)
    assert (found[:, :1] - expected).abs().max() <= 0.51
    same = outliers.fitted(images, 16, {"shape": [1, 8, 8], "max_value": 16})
    assert torch.equal(same, images)


def test_colours_become_the_brightness_that_pillow_computes() -> None:
    from PIL import Image

    g = torch.Generator().manual_seed(1)
    images = torch.randint(256, (4, 3, 6, 6), generator=g, dtype=torch.uint8)
    found = outliers.fitted(images, 255, {"shape": [1, 6, 6], "max_value": 255})
    for image, grey in zip(images, found, strict=True):
        pillow = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(grey[0].numpy().astype(int) - pillow).max() <= 1


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Path]:
    """Return a small Fashion-MNIST, and the digits, prepared."""
    dataset, contents = small_fashion(60, 20)
    for name, content in contents.items():
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(content)
    prepare(dataset, tmp_path, tmp_path / "fashion-mnist.json", [tmp_path / "raw"])
    return {"fashion-mnist": tmp_path / "fashion-mnist.json", "digits": factory.manifest()}


def small_settings(manifests: dict[str, Path], **more: Any) -> Any:
    dataset, _ = small_fashion(60, 20)
    given = {**FAR, "pool": 40, "contamination": 0.5}
    wanted = {"per_class": 2, "unlabelled": "rest", "open_set": given, **more}
    made = factory.settings(batch=20, epochs=2, epoch_images=40)
    made["dataset"] = {"name": "fashion-mnist", "identity": dataset.identity}
    made["split"] = canonical(parse(wanted), dataset, KNOWN)
    return made


def test_a_run_has_the_images_of_both(manifests, monkeypatch) -> None:
    datasets, made = Datasets(manifests, None), small_settings(manifests)
    data = datasets.of(made, torch.device("cpu"))
    assert data is datasets.of(made, torch.device("cpu"))
    _, fashion = open_prepared(manifests["fashion-mnist"])
    manifest, digits = open_prepared(manifests["digits"])
    assert data.images.shape == (80 + 1797, 1, 28, 28)
    assert np.array_equal(data.images[:80].numpy(), fashion["images"])
    form = outliers.fitted(torch.from_numpy(digits["images"]), manifest["max_value"], data.manifest)
    assert torch.equal(data.images[80:], form)
    plain = {**made, "split": {**made["split"], "open_set": {"classes": EVERY}}}
    alone = datasets.of(plain, torch.device("cpu"))
    assert len(alone.images) == 80 and alone.manifest == data.manifest

    two = {"labelled": Stream(("weak",)), "unlabelled": Stream(("weak",), "unlabelled", 2)}
    factory.use_method(monkeypatch, streams=lambda settings: two)
    run = Run(made, data, torch.device("cpu"))
    batches = seen(run)
    ids = torch.cat([batch["unlabelled"].ids for batch in batches])
    y = torch.cat([batch["unlabelled"].y for batch in batches])
    assert ((y == -1) == (ids >= 80)).all() and (y == -1).any() and (y >= 0).any()
    assert run.final()["test_accuracy"] >= 0


def test_they_are_shown_at_the_resolution_of_the_split(manifests) -> None:
    made = small_settings(manifests, resolution={"stored": 14, "input": 14})
    data = Datasets(manifests, None).of(made, torch.device("cpu"))
    assert data.images.shape == (80 + 1797, 1, 14, 14)


def test_the_record_holds_the_contents_of_both(manifests, tmp_path: Path) -> None:
    job = factory.job(small_settings(manifests))
    lookup = Lookup(factory.trainer(tmp_path / "store").store, manifests)
    found = lookup.inputs(job)
    for key, name in (("dataset", "fashion-mnist"), ("outliers", "digits")):
        assert found[key] == open_prepared(manifests[name])[0]["content_sha256"]
    assert "outliers" not in lookup.inputs(factory.job(factory.settings()))
    job["settings"]["split"]["open_set"]["outliers"]["identity"] = "0" * 64
    with pytest.raises(UserError, match=r"digits\.json: was prepared from other files"):
        lookup.inputs(job)
    with pytest.raises(UserError, match="digits: is not prepared; run `cyclery prepare digits`"):
        Lookup(lookup.store, {"fashion-mnist": manifests["fashion-mnist"]}).inputs(job)


def test_memory_for_both_is_asked_for(tmp_path: Path) -> None:
    def asked(**open_set: Any) -> int:
        def change(tier: Json, paper: Json) -> None:
            given = {"classes": [0, 1, 2, 3, 4, 5], "pool": 300, "contamination": 0.5, **open_set}
            tier["base"]["split"] |= {"unlabelled": "rest", "open_set": given}
            paper["experiments"]["main"]["arms"]["fast"]["method"] = "pseudo_label"

        graph = Graph(planned(tmp_path, change), {})
        [shard] = graph.plan.shards("one")
        return graph.shard_megabytes(*shard.id.split("/"), 1)

    more = asked(outliers={"dataset": "cifar10"}) - asked()
    # Six copies of 60,000 images of 8 x 8 grey pixels, a byte each.
    assert more == pytest.approx(6 * CIFAR10.train * 1.2 * 64 / 1e6, abs=2)
