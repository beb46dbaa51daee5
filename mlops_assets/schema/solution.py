"""The YAML schema of a solution: what a team states about one prediction problem. Validation only; nothing runs here."""

import re
from datetime import date, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.relativedelta import relativedelta
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from mlops_assets.schema.problem import Problem

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Strict(BaseModel):
    """A YAML mapping that admits only the fields it names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    start: date
    end: date | None = None
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    cadence: Literal["daily", "weekly", "monthly", "yearly"] = "daily"
    freshness: Duration | None = None

    @model_validator(mode="after")
    def _has_whole_partitions(self) -> "Partitions":
        check_bounds(self.start, self.end, self.cadence)
        return self


def check_bounds(start: date, end: date | None, cadence: str) -> None:
    """Raise ValueError unless `end` is after `start` and both begin a partition: rows of half a partition would never be loaded."""
    if end is not None and end <= start:
        raise ValueError(f"end {end} is not after start {start}")
    for name, bound in (("start", start), ("end", end)):
        if bound is None or (begin := _period_start(bound, cadence)) == bound:
            continue
        following = after(begin, {"weekly": "1w", "monthly": "1m", "yearly": "1y"}[cadence])
        days = {"weekly": "a Monday", "monthly": "the first of a month", "yearly": "the first of January"}[cadence]
        lost, kept, other = (
            (f"before {following}", begin, following) if name == "start" else (f"from {begin} on", following, begin)
        )
        alternative = "" if name == "end" and other <= start else f", or to {other}"
        raise ValueError(
            f"{cadence} partitions begin on {days}: with {name} {bound} the rows {lost} would never be loaded. "
            f"Set {name} to {kept} to load them{alternative}"
        )


def _period_start(day: date, cadence: str) -> date:
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


class Spine(Strict):
    """The dbt model with one row a prediction: its key, the moment of prediction, and what happened later."""

    model: str
    key: str
    prediction_time: str
    label: str
    label_time: str


class FeatureSource(Strict):
    """A feature view (all its features or `columns`), `request` (columns of the spine that the caller supplies), or `derived` from them.

    `accepted_lag`: how old a view's values may be at prediction time before the batch warns, where that is less than the view's freshness.
    """

    view: str | None = None
    version: int | None = None
    columns: list[str] | None = None
    accepted_lag: Duration | None = None
    request: list[str] | None = None
    derived: dict[Name, str] | None = None

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
    parameters: dict[str, Any] = {}


class Preprocessing(Strict):
    """Transformers in front of the estimator; none = the platform's default for the kind of column."""

    numeric: list[Step] | None = None
    categorical: list[Step] | None = None


class Space(Strict):
    """Values of one parameter that a search may try: numbers from `low` to `high` (whole ones when both are), or `choices`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[list[Any], Field(min_length=1)] | None = None

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
    candidates: list[Candidate]
    seconds: Annotated[float, Field(gt=0)] | None = None
    pruning: bool = True
    jobs: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _has_candidates(self) -> "Search":
        if self.trials and not self.candidates:
            raise ValueError("a search needs candidates")
        return self


class ErrorCost(Strict):
    """What a wrong decision costs, in any unit."""

    false_positive: Annotated[float, Field(gt=0)]
    false_negative: Annotated[float, Field(gt=0)]


class ThresholdRule(Strict):
    """How the decision threshold is chosen on out-of-fold predictions of the training rows: by a metric or by what errors cost."""

    maximize: Literal["f1", "accuracy", "balanced_accuracy"] | None = None
    cost: ErrorCost | None = None

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
    holdout: Duration
    metric: str
    estimator: Step
    preprocessing: Preprocessing = Preprocessing()
    seed: int = 0
    search: Search | None = None
    folds: Annotated[int, Field(ge=2)] = 3
    sample_weight: str | None = None
    class_weight: Literal["balanced"] | None = None
    calibration: Literal["isotonic", "sigmoid"] | None = None
    decision_threshold: Annotated[
        Annotated[float, Field(ge=0, le=1), Tag("number")] | Annotated[ThresholdRule, Tag("rule")], Discriminator(_threshold_kind)
    ] = 0.5

    @property
    def effective_search(self) -> Search | None:
        """The search, or None when it has no trials."""
        return self.search if self.search and self.search.trials else None


class Segments(Strict):
    """A model of its own for each of `values` of a column; other rows, and those whose segment has no champion, get the solution's."""

    column: str
    values: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]], Field(min_length=1)]

    @model_validator(mode="after")
    def _named_once(self) -> "Segments":
        if repeated := sorted({value for value in self.values if self.values.count(value) > 1}):
            raise ValueError(f"{', '.join(repeated)} cannot be in `values` twice")
        return self


class DatasetChecks(Strict):
    """Bounds a training dataset must keep before anything is fitted on it. Shares are from 0 to 1."""

    minimum_rows: int = 1000
    maximum_missing: float = 0.95
    maximum_label_correlation: float = 0.95
    label_rate: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class Gates(Strict):
    """What a candidate must reach on the hold-out, as a whole and in each slice, to be deployed; and how fast it must answer."""

    floor: dict[str, float] = {}
    against_champion: dict[str, float] = {}
    slices: list[str] = []
    worst_slice: dict[str, float] = {}
    maximum_calibration_error: float | None = None
    maximum_onnx_difference: float = 1e-4
    maximum_latency_milliseconds: Annotated[float, Field(gt=0)] = 250.0


class Serving(Strict):
    """Which channels answer, and what a challenger (a version that passed its gates and waits) may do in the online channel.

    Every `log_interval_seconds` their predictions are taken into the lake, when there are any.
    """

    online: bool = True
    stream: bool = True
    shadow: bool = False
    canary: Annotated[float, Field(ge=0, le=1)] = 0.0
    log_interval_seconds: Annotated[int, Field(ge=1)] = 60

    @property
    def tries_challenger(self) -> bool:
        """Whether a challenger is to be loaded at all."""
        return self.shadow or self.canary > 0


class Drift(Strict):
    """Drift of all features but those in `ignore`: an alert is beyond chance and of an effect that matters."""

    effect_size: Annotated[float, Field(gt=0, lt=1)] = 0.1
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05
    ignore: list[str] = []
    maximum_rows: Annotated[int, Field(ge=1000)] = 20000
    maximum_share_of_features: Annotated[float, Field(ge=0, le=1)] = 0.3


class Performance(Strict):
    """When a performance, estimated or realised, is too far below that of the hold-out; and how late the last labels of a window come."""

    tolerance: Annotated[float, Field(ge=0)] = 0.05
    label_delay: Duration = "1d"


class DataQuality(Strict):
    """Bounds for the rows of a window. Shares are from 0 to 1."""

    missing_increase: Annotated[float, Field(ge=0, le=1)] = 0.05
    maximum_unseen: Annotated[float, Field(ge=0, le=1)] = 0.01
    maximum_out_of_range: Annotated[float, Field(ge=0, le=1)] = 0.01
    row_count: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.5, 2.0]


class Monitoring(Strict):
    """Which windows predictions are judged over, and when something about them is wrong."""

    window: Literal["daily", "weekly", "monthly", "yearly"] = "weekly"
    drift: Drift = Drift()
    performance: Performance = Performance()
    data_quality: DataQuality = DataQuality()


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
    cooldown: Duration = "7d"
    max_age: Duration | None = "180d"
    minimum_new_rows: Annotated[int, Field(ge=0)] = 1000

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
    description: str
    owners: list[str]
    problem: Problem
    partitions: Partitions
    spine: Spine
    features: list[FeatureSource]
    limitations: list[str] = []
    training: Training
    segments: Segments | None = None
    checks: DatasetChecks = DatasetChecks()
    gates: Gates = Gates()
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()
