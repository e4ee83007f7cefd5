"""The transformation probe: forms of images, a frozen encoder, and what h tells that z does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import small_paper
from factories.threads import one_thread
from torch import nn

from cyclery.common.errors import UserError
from cyclery.methods import transformation_probe as probe

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
SPLIT: Json = {"test": 300, "validation": 100, "per_class": 100}
ENCODER: Json = {"method": {"name": "simclr", "output": None}, "split": SPLIT}


def child(of: str = "features", **method: Any) -> Json:
    """Return an arm that tells how images were changed."""
    return {"method": {"name": "transformation_probe", "of": of, **method}, "split": SPLIT,
            "parents": {"encoder": "encoder"}, "frozen": ["features", "head"]}  # fmt: skip


def planned(root: Path, arms: Json, **base: Any) -> Any:
    claim = {"experiment": "main", "arm": "h", "against": {"constant": 25},
             "metric": "test_transformation_accuracy"}  # fmt: skip
    return small_paper.planned(root, arms, [claim], **base)


class Pixels:
    """Channels of mean 0.4 and 0.5 and of deviation 0.2 and 0.3."""

    mean = torch.tensor([0.4, 0.5, 0.4])[:, None, None]
    std = torch.tensor([0.2, 0.3, 0.2])[:, None, None]


def values() -> torch.Tensor:
    """Return images [8, 3, 6, 6] in 0..1, not normalised."""
    return torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def changed(form: int, **given: Any) -> torch.Tensor:
    """Return them changed, in 0..1 again."""
    x = (values() - Pixels.mean) / Pixels.std
    generator = torch.Generator().manual_seed(3)
    found = probe.changed(x, form, Pixels, probe.Settings(**given), generator)
    return found * Pixels.std + Pixels.mean


@pytest.mark.parametrize("task", ["rotation", "noise", "sobel", "greyscale", "inversion"])
def test_the_first_form_is_the_image(task: Any) -> None:
    torch.testing.assert_close(changed(0, task=task), values())


def test_turns_are_counter_clockwise_quarters() -> None:
    for form in range(4):
        expected = torch.rot90(values(), form, (2, 3))
        x = (values() - Pixels.mean) / Pixels.std
        found = probe.changed(x, form, Pixels, probe.Settings(), None) * Pixels.std + Pixels.mean
        torch.testing.assert_close(found, expected)


def test_the_other_forms() -> None:
    torch.testing.assert_close(changed(1, task="inversion"), 1 - values())
    luma = torch.tensor([0.2989, 0.587, 0.114])
    grey = torch.einsum("bchw,c->bhw", values(), luma)[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(changed(1, task="greyscale"), grey)
    draw = torch.empty(8, 3, 6, 6).normal_(generator=torch.Generator().manual_seed(3))
    noisy = (values() + 0.25 * draw).clamp(0, 1)
    torch.testing.assert_close(changed(1, task="noise", deviation=0.25), noisy)
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    flat = nn.functional.pad(values().flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    a, b = (nn.functional.conv2d(flat, k[None, None]).view(8, 3, 6, 6) for k in (kernel, kernel.T))
    edges = (torch.hypot(a, b) / 4).clamp(0, 1)
    torch.testing.assert_close(changed(1, task="sobel"), edges, rtol=1e-4, atol=1e-5)


def test_the_encoder_is_frozen_and_the_probe_alone_learns(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"encoder": ENCODER, "h": child(), "z": child("z")})
    run = small_paper.run(plan, "z")
    before = {name: p.clone() for name, p in run.models["encoder"].named_parameters()}
    assert all(name.startswith("probe.") for name in run.flat.params)
    factory.finish(run)
    for name, value in run.models["encoder"].named_parameters():
        assert torch.equal(value, before[name]), name
    assert not run.models["encoder"].training


def test_it_is_measured_on_all_forms_of_held_out_images(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"encoder": ENCODER, "h": child()})
    run = small_paper.run(plan, "h", done=True)
    encoder, net = run.models["encoder"], run.models["probe"].eval()
    ids = run.ids["test"]
    images = run.data.images[ids].float() / 16
    mean, std = (torch.tensor(run.data.manifest[k])[:, None, None] for k in ("mean", "std"))
    x = (images - mean) / std
    right = [
        (net(encoder.features(x.rot90(k, (2, 3)))).argmax(1) == k).float().mean()  # type: ignore[operator]
        for k in range(4)
    ]
    final = run.final()
    assert final["test_transformation_accuracy"] == pytest.approx(float(sum(right)) / 4, abs=1e-4)
    assert "val_transformation_accuracy" in final and "test_accuracy" not in final


def test_vectors_of_another_length_and_images_that_do_not_turn_are_refused(tmp_path: Path) -> None:
    arms = {"encoder": {**ENCODER, "method": {"name": "simclr", "output": 16}}, "h": child("z")}
    with pytest.raises(UserError, match=r"of: z must be as long as features, 32 \(found 16"):
        small_paper.run(planned(tmp_path, arms), "h", done=True)
    with pytest.raises(UserError, match=r"method\.task: greyscale: images must have 3 channels"):
        small_paper.run(planned(tmp_path, {"encoder": ENCODER, "h": child(task="greyscale")}), "h")


def test_h_tells_turns_that_z_has_thrown_away(tmp_path: Path) -> None:
    """What the paper's table 3 says, on digits that are turned in the views of pretraining."""
    long: Json = {"epochs": 20, "evaluations": 1, "batch": 100,
                  "lr": {"kind": "cosine", "peak": 0.3}}  # fmt: skip
    encoder = {
        **ENCODER,
        **long,
        "augment": [],
        "strong": [{"op": "rotation"}, {"op": "random_resized_crop", "area": [0.5, 1.0]}],
    }
    arms = {"encoder": encoder, "h": {**child(), **long}, "z": {**child("z"), **long}}
    found = small_paper.trained(
        tmp_path / "runs", planned(tmp_path, arms, model={"name": "bn_mlp", "hidden": [64, 64]})
    )
    h, z = (found[arm]["final"]["test_transformation_accuracy"] for arm in ("h", "z"))
    assert h > z + 0.1, (h, z)
