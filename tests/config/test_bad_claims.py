"""Claims that cannot be tested, or would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories.bad_config import (
    FAST,
    MAIN,
    ONE,
    PAIR,
    Case,
    both,
    check_case,
    experiment,
    fast,
    main_experiment,
    pair,
)
from factories.project import TIER, arms, comparison, rich_paper, write

from cyclery.records import metrics
from cyclery.records.metrics import scale

CLAIMS: dict[str, Case] = {
    "a control chosen on the test set": (
        pair(against={"best_of": ["plain"], "by": "test_accuracy"}),
        ONE, f"{PAIR}.against.by: 'test_accuracy' would choose on the test set", ["val_accuracy"],
    ),
    "a control chosen by its time": (
        pair(against={"best_of": ["plain"], "by": "seconds"}),
        ONE, f"{PAIR}.against.by: unknown metric 'seconds'", ["val_accuracy"],
    ),
    "a choice that favours the claim": (
        pair(against={"best_of": ["plain"]}, lower_is_better=True),
        ONE, f"{PAIR}.against: `best_of` is chosen by the same runs", ["Name the arm"],
    ),
    "a choice that favours a claim about a loss": (
        pair(against={"best_of": ["plain"]}, metric="test_nll"),
        ONE, f"{PAIR}.against: `best_of` is chosen by the same runs", [],
    ),
    "a choice in what is taken from a difference": (
        pair(interaction={"against": {"best_of": ["plain"]}}),
        ONE, f"{PAIR}.interaction.against: `best_of` is chosen by the same runs", [],
    ),
    "a choice that a second difference takes over": (
        pair(against={"best_of": ["plain"]}, interaction={"metric": "val_accuracy"}),
        ONE, f"{PAIR}.interaction.against: `best_of` is chosen by the same runs", [],
    ),
    "the best of nothing": (
        pair(against={"best_of": []}),
        ONE, f"{PAIR}.against.best_of: must have at least 1 element", [],
    ),
    "an arm compared with itself": (
        pair(against="fast"), ONE, f"{PAIR}.against: 'fast' would be compared with itself", [],
    ),
    "equivalence without a margin": (
        pair(test="equivalence"),
        ONE, f"{PAIR}.margin: must be above 0 for the test 'equivalence' (found 0.0)", [],
    ),
    "unequal budgets without a reason": (
        fast(epochs=10),
        ONE, f"{PAIR}: the arms see different numbers of samples (fast 1,000, plain 500)",
        ["`unequal_budget`"],
    ),
    "a budget in another measure": (
        pair(equal="samples"), ONE, f"{PAIR}.equal: must be",
        ["images", "updates", "views", "forwards", "'samples'"],
    ),
    "ancestors that are none of the three": (
        pair(ancestors="teachers"), ONE, f"{PAIR}.ancestors: must be",
        ["started", "all", "none", "'teachers'"],
    ),
    "a cycle of parents": (
        both(
            fast(parents={"teacher": "plain"}),
            lambda tier, paper: arms(paper)["plain"].update(parents={"assistant": "fast"}),
        ),
        ONE, f"{FAST}.parents: a run cannot descend from itself",
        ["one/main/fast -> one/main/plain -> one/main/fast"],
    ),
    "an arm that is its own parent": (
        fast(parents={"teacher": "fast"}), ONE, f"{FAST}.parents: a run cannot descend", [],
    ),
    "an arm name that is a path": (
        lambda tier, paper: arms(paper).update({"../../etc": {}}),
        ONE, "experiments.main.arms.../../etc: must begin with a letter", ["'../../etc'"],
    ),
    "an experiment name with a space": (
        lambda tier, paper: paper["experiments"].update({"my main": main_experiment(paper)}),
        ONE, "experiments.my main: must begin with a letter", ["letters, digits"],
    ),
    "a claim name for the shell": (
        lambda tier, paper: paper["claims"].update({"C;rm": paper["claims"]["C-1"]}),
        ONE, "claims.C;rm: must begin with a letter", ["'C;rm'"],
    ),
    "an arm that would hide the range test": (
        lambda tier, paper: arms(paper).update({"range-test": {}}),
        ONE, "experiments.main.arms.range-test: this name means the range test", [],
    ),
    "an experiment named like a claim": (
        lambda tier, paper: paper["experiments"].update({"c-1": dict(main_experiment(paper))}),
        ONE, "claims.C-1: has the name of experiments.c-1; rename one", [],
    ),
    "an arm that stands twice": (
        experiment(tiers={"smoke": {"arms": ["plain", "fast", "plain"]}}),
        ONE, f"{MAIN}.tiers.smoke.arms: the arm 'plain' stands twice", [],
    ),
    "a claim without a test or a reason": (
        lambda tier, paper: paper["claims"].update({"C-2": {"statement": "-"}}),
        ONE, "claims.C-2: needs `comparisons`, or `not_run`", [],
    ),
    "a paper without claims": (
        lambda tier, paper: paper.update(claims={}),
        ONE, "claims: must have at least 1 element", [],
    ),
    "a range test that no arm asks for": (
        both(
            experiment(range={"low": 0.1, "high": 1}),
            pair(arm="range-test", against={"constant": 0}, metric="log10_max"),
        ),
        ONE, f"{PAIR}: no arm of 'main' asks for its range test", ["`lr: range`"],
    ),
}  # fmt: skip
MARGINS: dict[str, Case] = {
    "no statement": (
        lambda tier, paper: paper["claims"]["C-1"].update(statement=" "),
        ONE, "claims.C-1.statement: must say something", [],
    ),
    "no reason of a claim": (
        lambda tier, paper: paper["claims"]["C-1"].update(not_run={"all": ""}),
        ONE, "claims.C-1.not_run.all: must say something", [],
    ),
    "no reason of a paper": (
        lambda tier, paper: paper.update(not_run={"smoke": "\n"}),
        ONE, "not_run.smoke: must say something", [],
    ),
    "no reason of an arm": (
        experiment(tiers={"smoke": {"arms": ["plain"], "not_run": {"fast": ""}}}),
        ONE, f"{MAIN}.tiers.smoke.not_run.fast: must say something", [],
    ),
    "no reason of a budget": (
        both(fast(epochs=10), pair(unequal_budget=" ")),
        ONE, f"{PAIR}.unequal_budget: must say something", [],
    ),
    "no definition": (
        fast(own_definition=""), ONE, f"{FAST}.own_definition: must say something", [],
    ),
    "a fraction in groups": (
        pair(metric="test_accuracy@0_1"),
        ONE, f"{PAIR}.metric: 'test_accuracy@0_1' needs a fraction", [],
    ),
    "a fraction of other digits": (
        pair(metric="test_accuracy@٠"), ONE, f"{PAIR}.metric: 'test_accuracy@٠' needs a", [],
    ),
    "an accuracy against a likelihood": (
        pair(against_metric="test_nll"),
        ONE, f"{PAIR}.against_metric: 'test_nll' is in nats, 'test_accuracy' in percentage points",
        [],
    ),
    "a likelihood against an error of calibration": (
        pair(metric="test_nll", against_metric="test_ece"),
        ONE, f"{PAIR}.against_metric: 'test_ece' is in a share, 'test_nll' in nats", [],
    ),
    "a claim about calibration that does not say which way": (
        pair(metric="test_ece"),
        ONE, f"{PAIR}.lower_is_better: missing; of 'test_ece' smaller values are better",
        ["Say true"],
    ),
    "a likelihood against seconds": (
        pair(metric="seconds", against_metric="val_nll"),
        ONE, f"{PAIR}.against_metric: 'val_nll' is in nats, 'seconds' in seconds", [],
    ),
    "an accuracy against its logarithm": (
        pair(against_metric="log:test_accuracy"),
        ONE, f"{PAIR}.against_metric: 'log:test_accuracy' is in the logarithm of", [],
    ),
    "an interaction of two units": (
        pair(metric="test_nll", interaction={"metric": "test_ece"}),
        ONE, f"{PAIR}.interaction.metric: 'test_ece' has another unit than 'test_nll'", [],
    ),
    "an equivalence that cannot fail": (
        pair(test="equivalence", margin=1e9),
        ONE, f"{PAIR}.margin: must be at most 10 for the test 'equivalence' in percentage points",
        ["could hardly fail (found 1e+09)"],
    ),
    "a non-inferiority that can hardly fail": (
        pair(test="non-inferiority", margin=10.5),
        ONE, f"{PAIR}.margin: must be at most 10 for the test 'non-inferiority'", [],
    ),
    "an equivalence of shares": (
        pair(metric="test_ece", test="equivalence", margin=0.5),
        ONE, f"{PAIR}.margin: must be at most 0.1 for the test 'equivalence' in a share", [],
    ),
    "an equivalence of likelihoods": (
        pair(metric="test_nll", test="equivalence", margin=1),
        ONE, f"{PAIR}.margin: must be at most 0.25 for the test 'equivalence' in nats", [],
    ),
    "an equivalence of seconds": (
        pair(metric="seconds", test="equivalence", margin=1),
        ONE, f"{PAIR}.margin: seconds have no size", ["take 'log:seconds'"],
    ),
    "a superiority that cannot be": (
        pair(margin=100), ONE, f"{PAIR}.margin: must be below 100, the largest difference", [],
    ),
    "an equivalence in an interaction": (
        pair(test="equivalence", margin=50, interaction={"metric": "val_accuracy"}),
        ONE, f"{PAIR}.margin: must be at most 10", [],
    ),
}  # fmt: skip
CASES = CLAIMS | MARGINS


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(CASES[case], tmp_path, capsys)


def test_units_that_are_equal_are_compared(tmp_path: Path) -> None:
    from cyclery.config.load import load
    from cyclery.plan.project_checks import check

    paper = rich_paper()
    for metric, other in (
        ("test_accuracy", "val_accuracy"),
        ("test_nll", "val_nll@0.5"),
        ("log:seconds", "log:seconds"),
        ("test_accuracy@.5", "minority_accuracy"),
    ):
        comparison(paper).update(
            metric=metric, against_metric=other, test="equivalence", margin=0.1
        )
        write(tmp_path, TIER, paper)
        check(load(tmp_path))


def test_every_metric_has_a_scale() -> None:
    for metric in metrics.names("names"):
        assert scale(metric).words and scale(f"log:{metric}").words
    assert scale("raw_val_accuracy_median20") == scale("test_agreement")
