"""The YAML schema of a solution: what a team states about one prediction problem. Validation only; nothing runs here."""

import re
from datetime import date, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.relativedelta import relativedelta
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from mlops_assets.schema.cadence import LENGTHS, Cadence
from mlops_assets.schema.metric_names import metric_names
from mlops_assets.schema.problem import Problem

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Strict(BaseModel):
    """A YAML mapping that admits only the fields it names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[dwmy]", text):
        raise ValueError("a duration is a number and d, w, m or y, for example 14d or 2y")
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone of the tz database, such as Europe/Berlin") from error
    return name


Duration = Annotated[str, AfterValidator(_duration)]
"""A span of calendar time: `14d`, `8w`, `6m` or `2y`."""


def before(day: date, duration: Duration) -> date:
    """The day `duration` before `day`."""
    return day - _calendar(duration)


def after(day: date, duration: Duration) -> date:
    """The day `duration` after `day`."""
    return day + _calendar(duration)


def _calendar(duration: Duration) -> timedelta | relativedelta:
    count, unit = int(duration[:-1]), duration[-1]
    match unit:
        case "d":
            return timedelta(days=count)
        case "w":
            return timedelta(weeks=count)
        case "m":
            return relativedelta(months=count)
        case _:
            return relativedelta(years=count)


def longest_days(duration: Duration) -> int:
    """The most days that `duration` may have: a month has 31, a year 366."""
    return int(duration[:-1]) * {"d": 1, "w": 7, "m": 31, "y": 366}[duration[-1]]


class Partitions(Strict):
    """Time partitions of a source or a solution: `column` is the DATE column of its tables that holds the partition.

    The dates are those of `time_zone`: a training date begins at its midnight. Without a new materialization for `freshness`, Dagster
    shows the table (of a solution: its predictions) as stale.
    """

    column: str
    """The DATE column that holds the partition: in a source a column of type `date`, in a solution a column of the spine."""
    start: date
    """First day."""
    end: date | None = None
    """Day after the last one; left out, the partitions go on to today."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """The time zone of the dates, such as `America/New_York`: a training date begins at its midnight."""
    cadence: Cadence = "daily"
    """Length of a partition. Its key is its first day; weeks begin on Monday."""
    freshness: Duration | None = None
    """Time without a new materialization after which Dagster shows the table, of a solution its predictions, as stale. None:
    never."""

    @model_validator(mode="after")
    def _has_whole_partitions(self) -> "Partitions":
        check_bounds(self.start, self.end, self.cadence)
        return self


def check_bounds(start: date, end: date | None, cadence: Cadence) -> None:
    """Raise ValueError unless `end` is after `start` and both begin a partition: rows of half a partition would never be loaded."""
    if end is not None and end <= start:
        raise ValueError(f"end {end} is not after start {start}")
    for name, bound in (("start", start), ("end", end)):
        if bound is None or (begin := _period_start(bound, cadence)) == bound:
            continue
        following = after(begin, LENGTHS[cadence].duration)
        lost, kept, other = (
            (f"before {following}", begin, following) if name == "start" else (f"from {begin} on", following, begin)
        )
        alternative = "" if name == "end" and other <= start else f", or to {other}"
        raise ValueError(
            f"{cadence} partitions begin on {LENGTHS[cadence].begins_on}: with {name} {bound} the rows {lost} would never be loaded. "
            f"Set {name} to {kept} to load them{alternative}"
        )


def _period_start(day: date, cadence: Cadence) -> date:
    """The first day of the week, month or year around `day`."""
    match cadence:
        case "weekly":
            return day - timedelta(days=day.weekday())
        case "monthly":
            return day.replace(day=1)
        case "yearly":
            return day.replace(month=1, day=1)
        case _:
            return day


class Schedule(Strict):
    """When something is done by the clock on the wall. A schedule that is declared runs; Dagster's page *Automation* stops it."""

    cron: str
    """Minute, hour, day of the month, month and weekday, such as `0 6 * * 1` for Mondays at six."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """Time zone of `cron`, a name of the tz database."""


class Spine(Strict):
    """The dbt model with one row a prediction: its key, the moment of prediction, and what happened later."""

    model: str
    """Name of the dbt model with one row a prediction."""
    key: str
    """Its column that identifies the row."""
    prediction_time: str
    """Its column with the moment of prediction. Features count as known at this moment."""
    label: str
    """Its column with what happened; null while unknown. Binary: 0 and 1, or boolean."""
    label_time: str
    """Its column with the moment at which the label became known."""


class FeatureSource(Strict):
    """A feature view (all its features or `columns`), `request` (columns of the spine that the caller supplies), or `derived` from them.

    `accepted_lag`: how old a view's values may be at prediction time before the batch warns, where that is less than the view's freshness.
    """

    view: str | None = None
    """Name of a feature view: a dbt model with `meta.feature_view`."""
    version: int | None = None
    """Version of the view; left out, the newest."""
    columns: list[str] | None = None
    """Features of the view to use; left out, all."""
    accepted_lag: Duration | None = None
    """How old its values may be before the check `fresh_features` warns; left out, the view's `freshness_days`."""
    request: list[str] | None = None
    """Columns of the spine that the caller knows at prediction time, instead of a `view`."""
    derived: dict[Name, str] | None = None
    """Name -> SQL expression over the columns of `request`, instead of a `view`."""

    @model_validator(mode="after")
    def _one_kind(self) -> "FeatureSource":
        if [self.view, self.request, self.derived].count(None) != 2:
            raise ValueError("give either `view` (with `version`, `columns`) or `request` or `derived`")
        if self.view is None and (self.version, self.columns, self.accepted_lag) != (None, None, None):
            raise ValueError("`version`, `columns` and `accepted_lag` belong to a `view`")
        return self


class Step(Strict):
    """A scikit-learn compatible class by import path, with its parameters."""

    type: str
    """Import path of a scikit-learn compatible class."""
    parameters: dict[str, Any] = {}
    """Arguments of its constructor."""


class Preprocessing(Strict):
    """Transformers in front of the estimator; none = the platform's default for the kind of column."""

    numeric: list[Step] | None = None
    """Transformers of the numeric features, in order. Left out: what suits the estimator. Empty: none."""
    categorical: list[Step] | None = None
    """The same for the categorical features."""


class Space(Strict):
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


class Search(Strict):
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


class ErrorCost(Strict):
    """What a wrong decision costs, in any unit."""

    false_positive: Annotated[float, Field(gt=0)]
    """Of a predicted 1 that was 0."""
    false_negative: Annotated[float, Field(gt=0)]
    """Of a predicted 0 that was 1."""


class ThresholdRule(Strict):
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


def _threshold_kind(value: object) -> str:
    """Which of the two a threshold is meant to be, so that an error speaks of that one alone."""
    return "rule" if isinstance(value, dict | ThresholdRule) else "number"


class Training(Strict):
    """How a model is fitted: `window` of history before the training date, the last `holdout` of it kept for evaluation."""

    window: Duration
    """Span before the training date whose rows are used. A duration: `14d`, `8w`, `6m`, `2y`."""
    holdout: Duration
    """The last part of the window, kept for evaluation. A duration."""
    metric: str
    """The metric that the `baseline` gate and the slice plots use."""
    estimator: Step
    """The model."""
    preprocessing: Preprocessing = Preprocessing()
    """Transformers in front of the model."""
    seed: int = 0
    """Seed of everything random."""
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


class Segments(Strict):
    """A model of its own for each of `values` of a column; other rows, and those whose segment has no champion, get the solution's."""

    column: str
    """A request column or entity key, text or whole number: known before any feature is looked up."""
    values: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]], Field(min_length=1)]
    """The values that may get a model: letters, digits, `_` and `-`."""

    @model_validator(mode="after")
    def _named_once(self) -> "Segments":
        if repeated := sorted({value for value in self.values if self.values.count(value) > 1}):
            raise ValueError(f"{', '.join(repeated)} cannot be in `values` twice")
        return self


class DatasetChecks(Strict):
    """Bounds a training dataset must keep before anything is fitted on it. Shares are from 0 to 1."""

    minimum_rows: int = 1000
    """The least training rows. Checked by `row_count`."""
    maximum_missing: float = 0.95
    """The largest share of missing values of a feature. Checked by `missing`."""
    maximum_label_correlation: float = 0.95
    """The largest absolute correlation of a numeric feature with the label (`leakage_guard`)."""
    label_rate: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Least and greatest mean of the label, in training rows and hold-out alike. Checked by `label_rate`."""


class Gates(Strict):
    """What a candidate must reach on the hold-out, as a whole and in each slice, to be deployed; and how fast it must answer."""

    floor: dict[str, float] = {}
    """Metric -> the value it must reach on the hold-out (an upper bound where smaller is better)."""
    against_champion: dict[str, float] = {}
    """Metric -> by how much the candidate may be worse than the champion on the same rows. A negative number asks for an
    improvement."""
    slices: list[str] = []
    """Features or entity keys by which metrics are shown, with intervals."""
    worst_slice: dict[str, float] = {}
    """Metric -> the value that every slice of `slices` with 200 rows or more must reach, unless chance explains the lack."""
    maximum_calibration_error: float | None = None
    """The largest expected calibration error. Binary problems only."""
    maximum_onnx_difference: float = 1e-4
    """The largest difference between the ONNX bundle and the scikit-learn pipeline on hold-out rows."""
    maximum_latency_milliseconds: Annotated[float, Field(gt=0)] = 250.0
    """The longest time that 99 of 100 single rows may take to be predicted."""
    own: dict[str, dict[str, Any]] = {}
    """[Gates of your own](extend.md#gate): import path or name of an entry point -> parameters."""


Engine = Literal["process", "worker"]


class Worker(Strict):
    """The workers of LitServe that a version has under the engine `worker`. Each process that accepts requests has its own."""

    processes: Annotated[int, Field(ge=1)] = 1
    """Workers of each process that accepts requests (`MLOPS_SERVING_PROCESSES`)."""
    max_batch_size: Annotated[int, Field(ge=1)] = 64
    """The most requests that are predicted at once."""
    batch_timeout_milliseconds: Annotated[float, Field(ge=0)] = 0.0
    """How long a worker that has a request waits for more. 0: it takes those that wait already."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """From the arrival of a request to its answer; one that takes longer is answered with 504."""


class Serving(Strict):
    """Which channels answer, and what a challenger (a version that passed its gates and waits) may do in the online channel.

    Every `log_interval_seconds` their predictions are taken into the lake, when there are any.
    """

    online: bool = True
    """Whether the online server answers for the solution."""
    stream: bool = True
    """Whether the stream scorer answers for the solution."""
    engine: Engine | None = None
    """Where the online server runs the model: `process`, in the process that accepted the request, or `worker`, in a worker of LitServe.
    Left out: what the latency that `evaluation` measures suggests. A model without an ONNX form has workers."""
    worker: Worker = Worker()
    """How the workers work."""
    shadow: bool = False
    """A challenger scores every online request too; its predictions are logged, not answered."""
    canary: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the entities (0 to 1) whose online requests a challenger answers; an entity stays on its side."""
    log_interval_seconds: Annotated[int, Field(ge=1)] = 60
    """How often, in seconds, the predictions of the servers are taken into the lake, when there are any."""

    @property
    def tries_challenger(self) -> bool:
        """Whether a challenger is to be loaded at all."""
        return self.shadow or self.canary > 0


class Drift(Strict):
    """Drift of all features but those in `ignore`: an alert is beyond chance and of an effect that matters."""

    effect_size: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The least effect of an alert, on the scale of the Jensen-Shannon distance (0 to 1) whatever the distance."""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The probability that a window in which nothing changed has any alert; it is divided among the cells of the window."""
    ignore: list[str] = []
    """Features that move by nature, such as the calendar: neither their drift nor their range is checked."""
    maximum_rows: Annotated[int, Field(ge=1000)] = 20000
    """The most rows of a hold-out that are stored, and of a window that the reconstruction error reads."""
    maximum_share_of_features: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The largest share of features with an alert. Checked by `drift`."""


class Performance(Strict):
    """When a performance, estimated or realised, is too far below that of the hold-out; and how late the last labels of a window come."""

    tolerance: Annotated[float, Field(ge=0)] = 0.05
    """By which share of the hold-out's value a metric may be worse. Checked by `performance`."""
    label_delay: Duration = "1d"
    """How long after a window its last labels come. Until then it is partial, and the estimate is compared."""


class DataQuality(Strict):
    """Bounds for the rows of a window. Shares are from 0 to 1."""

    missing_increase: Annotated[float, Field(ge=0, le=1)] = 0.05
    """By how much the missing share of a feature may exceed that of the hold-out (`missing_values`)."""
    maximum_unseen: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The largest share of values that training did not hold (`unseen_categories`)."""
    maximum_out_of_range: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The largest share of numbers outside the range that training held (`out_of_range`)."""
    row_count: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.5, 2.0]
    """Least and greatest number of predictions a partition, as multiples of the hold-out's (`window_rows`)."""


class Monitoring(Strict):
    """Monitoring windows, and the limits that their reports check."""

    window: Cadence = "weekly"
    """Length of a window."""
    drift: Drift = Drift()
    """When drift alerts."""
    performance: Performance = Performance()
    """When the performance alerts."""
    data_quality: DataQuality = DataQuality()
    """When the data of a window alerts."""
    own: dict[str, dict[str, Any]] = {}
    """[Monitors of your own](extend.md#monitor): import path or name of an entry point -> parameters."""


def _of_windows(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d*) of ([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError("say how many of how many windows, for example 2 of 5")
    return text


class Retraining(Strict):
    """When a solution is trained again: when enough of the last windows are bad, or the model is too old, and nothing speaks against it.

    `max_age` is also the age from which Dagster shows the model as stale.
    """

    bad_windows: Annotated[str, AfterValidator(_of_windows)] = "2 of 5"
    """How many of how many last monitoring windows of a version must be bad."""
    cooldown: Duration = "7d"
    """Span after a training date in which no other training follows, whatever came of the first."""
    max_age: Duration | None = "180d"
    """Age of a model, from its training date, that is a reason by itself; none: no age is."""
    minimum_new_rows: Annotated[int, Field(ge=0)] = 1000
    """The least rows whose labels became known since the last training."""

    @property
    def bad(self) -> int:
        """How many windows must be bad."""
        return int(self.bad_windows.split(" of ")[0])

    @property
    def of(self) -> int:
        """How many of the last windows are looked at."""
        return int(self.bad_windows.split(" of ")[1])


class Solution(Strict):
    """One prediction problem, from its spine to its monitoring. The attributes of an `MLSolution` component."""

    name: Name
    """Name of the solution: prefix of its assets, schema of its tables, its group, its model in MLflow."""
    description: str
    """What is predicted, and when."""
    owners: list[str]
    """Who answers for it: e-mail addresses or `team:<name>`."""
    problem: Problem
    """Kind of problem."""
    partitions: Partitions
    """Partitions of the predictions and outcomes; a training date is one of these keys too."""
    spine: Spine
    """Who is predicted, when, and what happened."""
    features: list[FeatureSource]
    """What the model reads, in the order of its columns."""
    limitations: list[str] = []
    """What the model should not be used for, and what is known to be wrong with it. Written into its model card."""
    training: Training
    """How a model is fitted."""
    schedule: Schedule | None = None
    """When the solution is trained again on all data there is, beside the trainings that its reports ask for."""
    segments: Segments | None = None
    """Models of their own for some rows, besides the solution's."""
    checks: DatasetChecks = DatasetChecks()
    """What the training dataset must hold before anything is fitted."""
    gates: Gates = Gates()
    """What a candidate must reach before it is deployed."""
    serving: Serving = Serving()
    """Which channels answer, and what a challenger may do."""
    monitoring: Monitoring = Monitoring()
    """How predictions are watched."""
    retraining: Retraining = Retraining()
    """When it is trained again."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are computed: those of the problem, and those that are named by import path."""
        named = [self.training.metric, *self.gates.floor, *self.gates.against_champion, *self.gates.worst_slice]
        return tuple(dict.fromkeys([*metric_names(self.problem), *(name for name in named if ":" in name)]))
