"""Types of a job, of a run's settings and of its record, all plain JSON.

Everything here goes through files, so these are dictionaries with declared keys. What an optional
key means where it is absent stands beside it. ``docs/schemas/record.schema.json`` is made of them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias

# pydantic, which makes the JSON Schemas, takes typing's own from Python 3.12 on.
from typing_extensions import TypedDict

Values: TypeAlias = dict[str, Any]
"""Free-form settings: which keys there are, the class of the component or of the kind says."""
Figure: TypeAlias = float | list[float] | list[float | None] | None
"""A number or one per class; null where it is not finite, or the class has no sample."""


class Component(TypedDict):
    """A network or an optimiser: its name and all of its settings."""

    name: str
    settings: Values


class MethodChoice(Component):
    """A method with its settings, without the quantities that follow a schedule."""

    version: int
    """Version of what the method computes."""


class DatasetChoice(TypedDict):
    """The dataset of a run."""

    name: str
    identity: str
    """Hash of what the dataset is declared to be: raw files, reader, sizes."""


class SplitChoice(TypedDict):
    """Which rows are trained, validated and tested on; see the configuration reference."""

    test: int | None
    validation: int
    labels: int | None
    per_class: int | None
    choose: str
    imbalance: Values | None
    unlabelled: str | None
    share: int
    folds: int | None
    fold: int | None
    # Absent where they say nothing, as in records from before they were there.
    part: NotRequired[int | str]
    noise: NotRequired[Values]
    hierarchy: NotRequired[list[list[int]]]
    hierarchy_order: NotRequired[str]
    coarse: NotRequired[list[int]]
    open_set: NotRequired[Values]
    unlabelled_pool: NotRequired[int]
    unlabelled_imbalance: NotRequired[Values]
    resolution: NotRequired[Values]
    retrain: NotRequired[bool]


class StudyTrial(TypedDict):
    """A configuration that a study tries."""

    values: dict[str, float]
    """The drawn values by quantity."""
    schedules: dict[str, Values]
    """Those of the arm with these values."""


class StudyChoice(TypedDict):
    """Random search with asynchronous successive halving; see the configuration reference."""

    trials: list[StudyTrial]
    grace_epochs: int
    reduction: int
    last: int


class ArmSettings(TypedDict):
    """Resolved settings of an arm: all that determines the numbers of its runs, but the seed."""

    engine: int
    """Version of what the engine computes."""
    method: MethodChoice
    dataset: DatasetChoice
    split: SplitChoice
    model: Component
    head: NotRequired[Component]
    """Absent where it is linear, as every network's is unless another is chosen."""
    optimiser: Component
    schedules: dict[str, Values]
    """Every quantity that may change with time, ``batch`` among them, by its name."""
    augment: list[Values]
    strong: list[Values]
    """What follows the augmentations in a strong view."""
    views: NotRequired[dict[str, list[Values]]]
    """Augmentations of further views by name; absent where the method takes none."""
    probes: NotRequired[dict[str, Values]]
    """What is measured of the final features, by label; absent where nothing is."""
    mu: int | None
    """Unlabelled samples per labelled one; null where the method takes none."""
    epoch_images: int | None
    ema_buffers: str | None
    init: str | None
    """Name of the parent whose weights start the run."""
    init_share: float | None
    init_parts: NotRequired[list[str]]
    """The parts that are the parent's at the start; absent where the whole network is."""
    frozen: NotRequired[list[str]]
    """Parts that are not trained; absent where all are."""
    rates: NotRequired[dict[str, float]]
    """Factors of the learning rate by part; absent where it is the same for all."""
    clip_values: NotRequired[dict[str, float]]
    """Bounds on the entries of gradients by part; absent where there are none."""
    draw: str | None
    """Name of other initial weights, order and random numbers on the same split."""
    epochs: int
    precision: str
    compile: bool
    deterministic: bool
    threads: int
    evaluations: int
    sweep: NotRequired[str]
    """How the learning rate rises in a range test; absent elsewhere."""
    study: NotRequired[StudyChoice]
    """What a study of a random search tries; absent elsewhere."""


class RunSettings(ArmSettings):
    """Resolved settings of one run, as trainer and record have them; the run key is their hash."""

    seed: int
    parents: NotRequired[dict[str, list[str]]]
    """Run keys of the parents by their names; absent in a range test."""
    range: NotRequired[str | None]
    """Key of the range test that the learning rate takes its bounds from."""
    tuned: NotRequired[list[list[Any]]]
    """Hash and seeds of every trial of tuning; absent where the arm is not tuned."""
    searched: NotRequired[str]
    """Run key of the study that chose its values; absent where nothing was searched."""


class JobTrial(TypedDict):
    """One trial of an arm's tuning, as the arm's own runs need it."""

    factors: dict[str, float]
    runs: list[str]
    """Run keys of the trial; none where a study trained it."""
    schedules: dict[str, Values]
    """Those of the arm with these factors, with which its runs are trained if it is chosen."""


class Job(TypedDict):
    """One run to train, complete, so that a machine without the configuration can do it."""

    key: str
    label: str
    kind: Literal["run", "range", "study"]
    settings: RunSettings
    images: int
    """All images that pass the network in training."""
    keep: NotRequired[bool]
    """Whether final weights are kept; absent in a range test."""
    range_runs: NotRequired[list[str]]
    """Run keys of the range test; absent in a range test itself."""
    trials: NotRequired[list[JobTrial]]
    """Absent where the arm is neither tuned nor searched."""
    study_run: NotRequired[str]
    """Run key of the study that chooses among the trials; absent where the arm is not searched."""
    parent_models: NotRequired[dict[str, list[int | Component]]]
    """Of each parent how many networks and which; absent in a range test."""


class ParentInput(TypedDict):
    """A parent's run as a child used it."""

    key: str
    sha256: str | None
    """SHA-256 of its checkpoint; null where it diverged and so has none."""


class RangeInput(TypedDict):
    """The bounds that a run took from a range test."""

    key: str | None
    base: float
    max: float


class Inputs(TypedDict):
    """Inputs of a run besides its settings; where they have changed, the run is trained again."""

    dataset: str
    """Hash of the content of the prepared dataset."""
    outliers: NotRequired[str]
    """That of the other dataset whose images are outliers; absent where there is none."""
    parents: dict[str, list[ParentInput]]
    range: RangeInput | None
    tuned: NotRequired[dict[str, float]]
    """Factors that tuning chose, or values that a search did; absent where the arm has neither.

    Empty where every trial of a search diverged, so that the values as declared stand."""


class Bounds(TypedDict):
    """The usable range of learning rates that one sweep shows."""

    base: float
    max: float
    flags: list[str]
    """What to heed, in words."""


class Facts(TypedDict):
    """Facts that every record has."""

    schema: int
    settings: RunSettings
    inputs: Inputs
    images_per_second: float
    """Images of all views over seconds."""
    device: str
    versions: dict[str, str]
    code: NotRequired[dict[str, str]]
    """Hashes of the code of ``method`` and ``engine``; older records have none."""
    commit: str | None
    """Git commit, with ``+`` where files differed from it; null without git."""
    started: str


class Trained(TypedDict):
    """Samples and updates of the training."""

    images: int
    """Samples of the first stream, the labelled ones where there are any, with repetition."""
    views: int
    """Images of all views, unlabelled ones too."""
    forwards: NotRequired[int]
    """Images that passed a network forwards; absent in a sweep, and in older records."""
    updates: int


class Spent(Trained):
    """Time and speed of the training."""

    seconds: float


class RunOutcome(Spent):
    """Outcome of a run."""

    status: Literal["done", "diverged"]
    diverged_step: int | None
    """The update at which the loss stopped being finite."""
    probing_seconds: NotRequired[float]
    """Time of the probes, no part of ``seconds``; absent where there are none."""
    final: dict[str, Figure]
    """Figures of the last state; accuracies are fractions. Empty where the run diverged."""
    curve: dict[str, list[float]]
    """``train_*`` at every ``epoch``; ``val_*`` and ``test_*`` at every ``eval_epoch``."""
    cohort: int
    """The most runs that were trained side by side with it."""
    checkpoint_sha256: NotRequired[str]
    """SHA-256 of its final weights; absent where they are not kept."""


class Sweep(Trained):
    """Curves of a range test's sweep: a list entry for each reading."""

    lr: list[float]
    accuracy: list[float]
    """On the validation split, a fraction."""
    loss: list[float]
    """Mean training loss since the reading before."""
    bounds: Bounds
    readings: dict[str, float | None]
    """Learning rates that other tools would suggest, used by nothing."""


class SweepOutcome(Sweep):
    """Outcome of a sweep: one that stops being finite ends early, and is done."""

    status: Literal["done"]
    seconds: float


class RunRecord(RunOutcome, Facts):
    """The record of a run: the only source of evidence and report."""

    key: str
    kind: Literal["run"]
    sha256: str
    """SHA-256 of the rest, as canonical JSON."""


class RangeRecord(SweepOutcome, Facts):
    """The record of one sweep of a learning-rate range test."""

    key: str
    kind: Literal["range"]
    sha256: str
    """SHA-256 of the rest, as canonical JSON."""


class StudiedTrial(TypedDict):
    """What became of a trial of a study."""

    values: dict[str, float]
    epochs: int
    """After how many epochs it ended."""
    ended: Literal["finished", "pruned", "diverged"]
    """Why: all epochs were done, others were better at a rung, or the loss was not finite."""
    metric: list[float]
    """After each epoch, the mean of the last validation accuracies."""


class Study(Trained):
    """The trials of a study, in their order, and the choice."""

    trials: list[StudiedTrial]
    chosen: int | None
    """The trial with the best metric at its end; null where all diverged."""


class StudyOutcome(Study):
    """Outcome of a study: one whose trials all diverged is done."""

    status: Literal["done"]
    seconds: float


class StudyRecord(StudyOutcome, Facts):
    """The record of one study of a random search."""

    key: str
    kind: Literal["study"]
    sha256: str
    """SHA-256 of the rest, as canonical JSON."""


Record: TypeAlias = RunRecord | RangeRecord | StudyRecord
