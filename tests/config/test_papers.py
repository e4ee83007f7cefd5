"""The papers as configured: claims of their cards, fair comparisons, and the cost of smoke."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from factories import checkout as checkout_factory

from cyclery.config.load import load
from cyclery.plan.graph import ArmPlan, Plan
from cyclery.plan.project_checks import RANGE_ARM, check

ROOT = checkout_factory.ROOT
TIERS = ("smoke", "laptop", "desk", "paper")
CLAIMS = {
    "annotation-efficient": [f"ANNOTATION-EFFICIENT-{n}" for n in range(1, 7)],
    "gct": [f"GCT-{n}" for n in range(1, 11)],
    "cyclical-focal-loss": [f"CFL-{n}" for n in range(1, 10)],
    "clr": [*(f"CLR-{n}" for n in range(1, 14)), "SC-1"],
    "fixmatch": [f"FIXMATCH-{n}" for n in range(1, 14)],
    "byol": [f"BYOL-{n}" for n in range(1, 13)],
    "simclr": [f"SIMCLR-{n}" for n in range(1, 14)],
    "kd": [f"KD-{n}" for n in range(1, 10)],
    "kd-fidelity": [f"KD-FIDELITY-{n}" for n in range(1, 15)],
    "soteacher": [f"SOTEACHER-{n}" for n in range(1, 8)],
    "ces-kd": [f"CES-KD-{n}" for n in range(1, 5)],
    "hiermatch": [f"HIERMATCH-{n}" for n in range(1, 5)],
    "mixmatch": [f"MIXMATCH-{n}" for n in (1, 2, 3, 4, *(f"5{part}" for part in "abcdef"), 6, 7)],
    "mean-teacher": [f"MEANTEACHER-{n}" for n in (*range(1, 7), "6b", "7a", "7b", "7c", "7d")],
    "opencos": [
        *(f"OPENCOS-{n}" for n in range(1, 5)),
        *(f"OPENCOS-5-{part}" for part in ("filter", "soft", "norms", "labels", "left-out")),
        "OPENCOS-6",
    ],
    "reinit": [f"REINIT-{n}" for n in range(1, 6)],
    "s4l": [f"S4L-{n}" for n in range(1, 9)],
    "small-data": [f"SMALL-DATA-{n}" for n in range(1, 7)],
    "uda": [*(f"UDA-{n}" for n in range(1, 10)), "UDA-mask", "UDA-sharpening", "UDA-theory"],
}
COLUMNS = "paper,table,dataset,labels,architecture,method,metric,value,std,runs,source,confidence"
# Claims of these experiments are about fewer or more iterations, about equal views instead of equal
# labelled images, or about teachers that stop early, or an arm is a parent, untrained or trained
# without labels: how many different numbers of images their arms see (of all papers, or of one).
UNEQUAL = {
    "staged": 2, "super-full": 2, "super-fifth": 2, "unlabelled-share-images": 4, "size-10": 2,
    "size-2": 2, "start": 2, "optimisation": 3,
    "half": 2, "half-fixmatch": 2, "cifar100": 2, "cifar100-fixmatch": 2,
    "larger": 2, "before": 2, "before-smaller": 2, "combination": 3,
    **dict.fromkeys([f"digits-{share}" for share in ("80", "50", "00")], 2),
    **dict.fromkeys([f"small-{pool}" for pool in ("80", "50", "00", "80-25", "far")], 2),
    "animals-4": 2, "animals-25": 2,
    **{f"simclr/{name}": 2
       for name in ("digits-labels", "digits-turned", "views", "turned", "batches")},
    "simclr/digits": 4, "simclr/cifar10": 3,
    **{f"byol/{name}": 2 for name in ("pretraining", "decay", "batch-statistics")},
    # What is learnt first, and an arm with the updates of both; an untrained network.
    "weak-digits": 3, "weak-clothes": 3, "annotation-efficient/proxies": 2,
    # Equal numbers of pixels; stages with two candidates; a parent.
    "resolution-cost": 3, "resolution-cost-14": 2, "resolution-cost-28": 3, "stages": 2, "added": 2,
    "digits-teachers": 5, "small-teachers": 5, "fashion-teachers": 5, "wrn-teachers": 5,
}  # fmt: skip
# Papers whose figures are not known from anywhere.
UNREAD = ("ces-kd", "gct")
# An update of the smoke tier on one core, milliseconds (measured: 0.4 to 2.1).
UPDATE_MS = {
    "fixmatch": 2.2,
    "mean_teacher": 1.3,
    "pseudo_label": 1.3,
    "hiermatch": 3.1,
    "mixmatch": 2.9,
    "mixup_ssl": 2.0,
    "remixmatch": 3.0,
    "ict": 1.9,
    "soteacher": 1.4,
    "ces_kd": 1.5,
    "uda": 2.4,
    "s4l": 5.0,
    "vat": 2.5,
}
# The same of a small convolutional network, which no pack has.
CONVOLVED_MS = {
    "ole": 3.6, "grad_l2": 9.0, "auxilearn": 6.0, "moco": 6.4, "feature_distillation": 6.0,
}  # fmt: skip

each_paper = pytest.mark.parametrize("paper", CLAIMS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this project's configuration, without papers that a user is writing."""
    return checkout_factory.copy(tmp_path_factory.mktemp("papers"), "config")


@pytest.fixture(scope="module", params=TIERS)
def plan(request: pytest.FixtureRequest, root: Path) -> Plan:
    return check(load(root, {"tier": request.param}))


@pytest.fixture(scope="module")
def smoke(root: Path) -> Plan:
    return check(load(root, {"tier": "smoke"}))


def arms_of(plan: Plan, paper: str, experiment: str) -> dict[str, ArmPlan]:
    names = plan.arm_names(paper, experiment)
    return {name: plan.arm(paper, experiment, name) for name in names}


def update_ms(arm: ArmPlan) -> float:
    """Return the milliseconds of an update of smoke: a third of its own in a pack."""
    method = arm.settings["method"]["name"]
    if arm.settings["model"]["name"] in ("small_cnn", "vgg"):
        return CONVOLVED_MS.get(method, 3)
    return UPDATE_MS.get(method, 1) / 3


def kinds(spec: object) -> list[dict]:
    """Return all schedules in a normalised one, itself included."""
    if isinstance(spec, list):
        return [inner for item in spec for inner in kinds(item)]
    if not isinstance(spec, dict):
        return []
    return [spec, *(inner for value in spec.values() for inner in kinds(value))]


@each_paper
def test_every_claim_of_the_card_is_there_in_its_order(paper: str, root: Path) -> None:
    claims = load(root).papers[paper].claims
    assert [name for name in claims if name in CLAIMS[paper]] == CLAIMS[paper]
    for name, claim in claims.items():
        # Number 0 is ours: whether there is anything to be compared.
        known = [*CLAIMS[paper], CLAIMS[paper][0].rsplit("-", 1)[0] + "-0"]
        assert any(name == each or name.startswith(f"{each}-") for each in known)
        assert claim.statement.endswith("."), name
        assert claim.source or claim.own_definition, name


@each_paper
def test_a_claim_has_all_of_its_arms_or_a_reason(plan: Plan, paper: str) -> None:
    experiments = plan.experiments(paper)
    if not experiments:
        pytest.skip(f"{paper} has no experiment at {plan.tier}")
    for name, claim in plan.project.papers[paper].claims.items():
        reason = claim.not_run.get("all") or claim.not_run.get(plan.tier)
        if reason:
            assert len(reason) > 15, f"{name}: {reason!r} says too little"
            continue
        assert claim.comparisons, name
        for group in (group for c in claim.comparisons for group in c.groups()):
            assert group.experiment in experiments, (name, group.experiment)
            running = {RANGE_ARM, *plan.arm_names(paper, group.experiment)}
            assert set(group.arms) <= running, name


@each_paper
def test_arms_that_a_tier_leaves_out_have_a_reason(plan: Plan, paper: str) -> None:
    for name, experiment in plan.experiments(paper).items():
        left_out = set(experiment.arms) - set(plan.arm_names(paper, name))
        assert set(experiment.tiers[plan.tier].not_run) == left_out, name


@each_paper
def test_arms_of_an_experiment_see_equal_numbers_of_images(plan: Plan, paper: str) -> None:
    for name in plan.experiments(paper):
        images = {arm.cost["images"] for arm in arms_of(plan, paper, name).values()}
        every = len(arms_of(plan, paper, name)) == len(plan.experiments(paper)[name].arms)
        most = UNEQUAL.get(f"{paper}/{name}", UNEQUAL.get(name, 1))
        assert len(images) == most or (len(images) < most and not every), name


@each_paper
def test_no_comparison_is_of_a_run_with_itself(plan: Plan, paper: str) -> None:
    for name, claim in plan.project.papers[paper].claims.items():
        for comparison in claim.comparisons:
            for group in comparison.groups():
                if group.experiment not in plan.experiments(paper):
                    continue
                arms = arms_of(plan, paper, group.experiment)
                digests = [arms[arm].digest for arm in group.arms if arm in arms]
                assert len(set(digests)) == len(digests) or comparison.against_metric, name


@each_paper
def test_arms_of_an_experiment_are_different_runs(plan: Plan, paper: str) -> None:
    for name in plan.experiments(paper):
        arms = arms_of(plan, paper, name)
        assert len({arm.digest for arm in arms.values()}) == len(arms), name
        labels = [plan.project.papers[paper].experiments[name].arms[arm].label for arm in arms]
        assert len(set(labels)) == len(arms) and all(labels), name


@each_paper
def test_a_cycle_by_epoch_reaches_its_hardest_value(plan: Plan, paper: str) -> None:
    for name in plan.experiments(paper):
        for arm in arms_of(plan, paper, name).values():
            for spec in kinds(arm.settings["schedules"]):
                if spec.get("kind") == "cycle":
                    epochs = arm.settings["epochs"] - spec["cooldown"]
                    assert spec["cooldown"] or (epochs - 1) % 4 == 0, arm.id


def test_cycles_of_the_length_experiment_end_with_the_run_and_are_read_there(plan: Plan) -> None:
    for name, arm in arms_of(plan, "clr", "length").items():
        half = arm.settings["schedules"]["lr"]["step_epochs"]
        assert arm.settings["epochs"] % (2 * half) == 0, name
    settings = arms_of(plan, "clr", "length")["step-4"].settings
    epochs, points = settings["epochs"], settings["evaluations"]
    read = {math.ceil(epochs * i / points) / epochs for i in range(1, points + 1)}
    comparisons = plan.project.papers["clr"].claims["CLR-13"].comparisons
    for comparison in comparisons[:2]:
        end, peak = (
            float(str(metric).partition("@")[2])
            for metric in (comparison.metric, comparison.against_metric)
        )
        assert {end, peak} <= read
        assert (end * epochs) % 8 == 0 and (peak * epochs) % 8 == 4


@each_paper
def test_smoke_stays_within_its_budget(smoke: Plan, paper: str) -> None:
    # With all parents, of which an ensemble has more seeds than its students.
    cells = [cell for shard in smoke.closure(paper) for cell in shard.cells]
    runs = [arm for cell in cells for arm, _ in cell.runs]
    sweeps = {arm.range.key: arm.range for arm in runs if arm.range}.values()
    training = sum(arm.cost["updates"] * update_ms(arm) / 1e3 for arm in runs)
    evaluations = sum(arm.settings["evaluations"] for arm in runs)
    # On one core: an evaluation takes 1 ms; 15 ms a run, 0.3 s a sweep. Ten seeds in a minute on
    # two cores have 120 s, of which set-up, evidence and report take up to 30.
    cost = training + evaluations * 1e-3 + len(runs) * 15e-3
    cost += 0.3 * sum(len(sweep.seeds) for sweep in sweeps)
    # A thesis of several papers, of which four techniques are run, has more.
    assert cost < (140 if paper == "annotation-efficient" else 90), f"{cost:.0f} core-seconds"


def test_smoke_is_one_untuned_job_of_digits_per_paper_and_level(smoke: Plan) -> None:
    assert (smoke.project.seeds, smoke.project.tier.tuning) == (10, False)
    for paper in CLAIMS:
        shards = smoke.part_shards(paper)
        assert [shard.level for shard in shards] == list(range(len(shards)))
        seeds: dict[str, list[int]] = {}
        for cell in (cell for shard in shards for cell in shard.cells):
            assert cell.arm.settings["dataset"]["name"] == "digits"
            # The same perceptron where the norm is what an arm is about, and convolutions where
            # these are.
            convolved = {
                "small-data": ("small_cnn",),
                "annotation-efficient": ("bn_mlp", "vgg", "small_cnn"),
            }
            networks = convolved.get(paper, ("bn_mlp", "mlp"))
            assert cell.arm.settings["model"]["name"] in networks
            if cell.arm.variant in ("search", "held-out"):
                # On a split that no run has.
                assert [*cell.seeds] == [1_000_000]
                continue
            # Each of the ten splits has as many members of an ensemble as share it.
            share = cell.arm.settings["split"]["share"]
            assert {seed // share for seed in cell.seeds} <= set(range(10))
            seeds.setdefault(cell.arm.digest, []).extend(cell.seeds)
        for cell in (cell for shard in shards for cell in shard.cells):
            if cell.arm.digest in seeds:
                count = 10 * cell.arm.settings["split"]["share"]
                assert seeds[cell.arm.digest] == list(range(count)), cell.arm.id


def test_heads_are_coupled_as_in_the_ablation_beside_the_consistency_cost(plan: Plan) -> None:
    """There 0.1 times a sum over ten classes, beside one times the mean over 99 of 100 samples."""
    if "heads" not in plan.experiments("mean-teacher"):
        pytest.skip(f"no experiment with two heads at {plan.tier}")
    arms = arms_of(plan, "mean-teacher", "heads")
    [couples, cuts] = plan.project.papers["mean-teacher"].claims["MEANTEACHER-7d"].comparisons
    settings = arms[str(couples.arm)].settings
    ours = settings["method"]["settings"]["logit_distance"]
    ours /= settings["schedules"]["weight"]["end"]
    assert ours == pytest.approx(0.1 * 10 / 0.99, rel=0.02)
    assert arms[str(cuts.against)].settings["method"]["settings"]["logit_distance"] == 0
    # A rate at which this weight diverged would be no test of the claim.
    assert {arm.settings["optimiser"]["name"] for arm in arms.values()} == {"adam"}


def test_searches_of_stages_train_every_trial_to_its_end(plan: Plan) -> None:
    """Half-way one network has just been drawn anew, and another has not."""
    searched = [
        arm.settings
        for name in ("none-tuned", "full-tuned", "noise-40-tuned")
        if name in plan.experiments("reinit")
        for shard in plan.closure("reinit")
        for arm in (cell.arm for cell in shard.cells)
        if arm.variant == "search" and arm.experiment == name
    ]
    assert len(searched) == (9 if plan.tier in ("smoke", "laptop") else 0)
    for settings in searched:
        assert settings["study"]["grace_epochs"] == settings["epochs"]
        assert not settings["method"]["settings"]["early_stopping"]


def test_papers_share_their_baseline_runs(smoke: Plan) -> None:
    first, second = (
        {cell.arm.digest for shard in smoke.part_shards(paper) for cell in shard.cells}
        for paper in ("gct", "cyclical-focal-loss")
    )
    assert len(first & second) >= 5


@each_paper
def test_printed_figures_name_their_source_and_confidence(paper: str) -> None:
    path = ROOT / "config" / "reported" / f"{paper}.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS.split(",") and rows
    assert any(row["value"] for row in rows) == (paper not in UNREAD)
    for row in rows:
        assert row["paper"] == paper and row["source"]
        assert row["confidence"] in ("read", "memory")
        assert not row["value"] or math.isfinite(float(row["value"]))
