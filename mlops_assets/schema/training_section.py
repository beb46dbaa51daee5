"""The YAML schema of the section `training`: estimator, preprocessing, search, calibration, decision threshold."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from mlops_assets.schema.duration import Duration
from mlops_assets.schema.yaml_model import YamlModel


class Step(YamlModel):
    """A scikit-learn compatible class by import path, with its parameters."""

    type: str
    """Import path of a scikit-learn compatible class."""
    parameters: dict[str, Any] = {}
    """Arguments of its constructor."""


class Preprocessing(YamlModel):
    """Transformers in front of the estimator; none = the platform's default for the kind of column."""

    numeric: list[Step] | None = None
    """Transformers of the numeric features, in order. Left out: what suits the estimator. Empty: none."""
    categorical: list[Step] | None = None
    """The same for the categorical features."""


class Space(YamlModel):
    """Values of one parameter that a search may try: numbers from `low` to `high` (whole ones when both are), or `choices`."""

    low: int | float | None = None
    """The least value."""
    high: int | float | None = None
    """The greatest value."""
    log: bool = False
    """Whether values are spread evenly on a logarithmic scale."""
    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    """The values, instead of a range."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Space":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either `choices` or `low` and `high`")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give `low` and `high`, or `choices`")
        if self.low >= self.high:
            raise ValueError(f"the range from {self.low} to {self.high} is empty")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low}")
        return self


class Candidate(Step):
    """An estimator that a search tries: fixed `parameters`, and others from their `space`."""

    space: dict[str, Space] = {}
    """Arguments of its constructor that the search chooses."""

    @model_validator(mode="after")
    def _fixed_or_searched(self) -> "Candidate":
        if both := sorted(set(self.parameters) & set(self.space)):
            raise ValueError(f"{', '.join(both)} cannot be in `parameters` and in `space`")
        return self


class Search(YamlModel):
    """A search for the best estimator and parameters: `trials` of the `candidates`, the first one `training.estimator` as it is.

    0 trials: no search. `seconds` ends it earlier, `pruning` gives up a trial that is behind after its first folds.
    """

    trials: Annotated[int, Field(ge=0)]
    """How many configurations are tried, those of an interrupted run included. 0: no search."""
    candidates: list[Candidate]
    """The estimators that are tried, besides `training.estimator` as it is."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """No trial begins after so much time was spent on trials."""
    pruning: bool = True
    """Whether a trial that is worse than the median of the others after a fold is given up."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """How many trials run at once; they share the processors."""

    @model_validator(mode="after")
    def _has_candidates(self) -> "Search":
        if self.trials and not self.candidates:
            raise ValueError("a search needs candidates")
        return self


class ErrorCost(YamlModel):
    """What a wrong decision costs, in any unit."""

    false_positive: Annotated[float, Field(gt=0)]
    """Of a predicted 1 that was 0."""
    false_negative: Annotated[float, Field(gt=0)]
    """Of a predicted 0 that was 1."""


class ThresholdRule(YamlModel):
    """How the decision threshold is chosen on out-of-fold predictions of the training rows: by a metric or by what errors cost."""

    maximize: Literal["f1", "accuracy", "balanced_accuracy"] | None = None
    """The metric to be greatest."""
    cost: ErrorCost | None = None
    """The cost to be least, instead of a metric."""

    @model_validator(mode="after")
    def _metric_or_cost(self) -> "ThresholdRule":
        if (self.maximize is None) == (self.cost is None):
            raise ValueError("give either `maximize` or `cost`")
        return self


class TrainingHistory(YamlModel):
    """The rows of the dataset that a model of the average is fitted on, up to the newest. Empty: all of them, every row the same;
    otherwise those of the window.
    """

    span: Duration | None = None
    """Span before the newest row. A duration."""
    half_life: Duration | None = None
    """Span after which a row weighs half. A duration. For estimators that take weights."""

    @model_validator(mode="after")
    def _span_or_half_life(self) -> "TrainingHistory":
        if self.span is not None and self.half_life is not None:
            raise ValueError("give either `span` or `half_life`")
        return self


def _threshold_kind(value: object) -> str:
    """Which of the two a threshold is meant to be, so that an error speaks of that one alone."""
    return "rule" if isinstance(value, dict | ThresholdRule) else "number"


class Training(YamlModel):
    """How a model is fitted: `window` of history before the training date, the last `holdout` of it kept for evaluation."""

    window: Duration = ""
    """Span before the training date whose rows are used. A duration: `14d`, `8w`, `6m`, `2y`. Left out only where the table has no time."""
    holdout: Duration = ""
    """The last part of the window, kept for evaluation. A duration. Left out only where the table has no time."""
    holdout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Of a table without time: the share of its labelled rows that is kept for evaluation, the same of every class, chosen by the hash of
    the key."""
    metric: str
    """The metric that the `baseline` gate and the slice plots use."""
    estimator: Step
    """The model."""
    preprocessing: Preprocessing = Preprocessing()
    """Transformers in front of the model."""
    seed: int = 0
    """Seed of everything random."""
    refit: bool | None = None
    """Whether what serves is fitted again, on training rows and hold-out together, so that it does not lack the newest rows; the gates evaluate
    the model that has not seen the hold-out. Left out: where labels come in time, within half of the hold-out
    (`monitoring.performance.label_delay`). Never for a table without time, whose hold-out is predicted."""
    earlier_rows: Annotated[int, Field(ge=0)] | None = None
    """How many rows from before the window are fitted on too, chosen by the hash of the key, so that they spread over all the time before.
    0: none. Left out: 100000 where `histories` are left out too and the estimator takes weights, else none. Not for a table without time."""
    histories: list[TrainingHistory] | None = None
    """Rows whose models are averaged: one is fitted on each, and what serves is their mean. Left out: all rows of the dataset, and
    those of the window weighted by half every third of it; of an estimator that takes no weights, or a table without time, all rows alone.
    `[]`: all rows alone. Not for a table without time."""
    search: Search | None = None
    """A search for a better estimator or better parameters; none: `estimator` is fitted as it is."""
    folds: Annotated[int, Field(ge=2)] = 3
    """Parts in time of the second half of the training rows, each predicted by a model of the rows before it. For a search, a
    calibration and a chosen threshold."""
    sample_weight: str | None = None
    """Column of the spine with the weight of a training row, 0 or more. Metrics stay unweighted."""
    class_weight: Literal["balanced"] | None = None
    """`balanced`: every class weighs the same in training, however rare it is."""
    calibration: Literal["isotonic", "sigmoid"] | None = None
    """Binary: bends the scores so that they are probabilities, as out-of-fold predictions show them to be."""
    decision_threshold: Annotated[
        Annotated[float, Field(ge=0, le=1), Tag("number")] | Annotated[ThresholdRule, Tag("rule")], Discriminator(_threshold_kind)
    ] = 0.5
    """Binary: the score from which the predicted label is 1, or how to choose it."""

    @property
    def effective_search(self) -> Search | None:
        """The search, or None when it has no trials."""
        return self.search if self.search and self.search.trials else None
