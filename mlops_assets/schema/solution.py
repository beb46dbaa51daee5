"""The YAML schema of a solution: the sections that describe one prediction problem. Validation only; nothing runs here."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlops_assets.schema.column_names import LABELLED_AT, ROW_KEY, SNAPSHOT_AT, SNAPSHOT_DATE
from mlops_assets.schema.deployment_section import Deployment
from mlops_assets.schema.duration import Delay, Duration, maximum_days
from mlops_assets.schema.gates_section import DatasetChecks, Gates
from mlops_assets.schema.metric_names import metric_names
from mlops_assets.schema.monitoring_section import Monitoring, Retraining
from mlops_assets.schema.problem import Problem
from mlops_assets.schema.resources_section import StageResources
from mlops_assets.schema.time_partitions import Partitions, Schedule
from mlops_assets.schema.training_section import Training
from mlops_assets.schema.yaml_model import Name, Owners, YamlModel


class Spine(YamlModel):
    """One row a prediction: its key, the moment of prediction, and what happened later. A dbt model, or derived from a raw table.

    From a `table` the dbt model `<solution>_spine` is compiled, with the columns that the solution uses, their descriptions, types and
    tests. `mlops features eject <solution>_spine` makes it a file to edit.
    A `table` may have no time: then `prediction_time` and `label_time` are left out, and each day of `partitions` is a snapshot.
    """

    model: str | None = None
    """Name of the dbt model with one row a prediction."""
    table: str | None = None
    """Name of the raw table that the model is derived from, instead of `model`."""
    expressions: dict[Name, str] = {}
    """With `table`: name -> SQL expression over the columns of the table, a column that the table lacks."""
    key: str = ROW_KEY
    """Its column that identifies the row. With `table` it may be left out: then it is made from the content of the row without the label."""
    prediction_time: str = SNAPSHOT_AT
    """Its column with the moment of prediction. Features count as known at this moment. Left out: the table has no time."""
    label: str
    """Its column with what happened; null while unknown. Binary: 0 and 1, or boolean."""
    label_time: str = LABELLED_AT
    """Its column with the moment at which the label became known. Left out: the table has no time."""

    @property
    def has_time(self) -> bool:
        """Whether rows have a moment of prediction of their own."""
        return self.prediction_time != SNAPSHOT_AT

    @model_validator(mode="after")
    def _has_one_origin(self) -> "Spine":
        if (self.model is None) == (self.table is None):
            raise ValueError("give either `model`, a dbt model, or `table`, a raw table that it is derived from")
        if self.table is None and self.expressions:
            raise ValueError("`expressions` are of a spine that is derived from a `table`; write them in the SQL of the model")
        if self.has_time != (self.label_time != LABELLED_AT):
            raise ValueError("`prediction_time` and `label_time` belong together; leave out both where the table has no time")
        if self.table is None and (not self.has_time or self.key == ROW_KEY):
            raise ValueError(
                "a `model` needs `key`, `prediction_time` and `label_time`; they can be left out with a `table` alone"
            )
        return self


class SolutionPartitions(Partitions):
    """Time partitions of a solution. One without time has a partition for each day on which its table may be looked at."""

    column: str = SNAPSHOT_DATE
    """The DATE column of the spine that holds the partition. Left out only where the table has no time."""


class FeatureSource(YamlModel):
    """A feature view (all its features or `columns`), `request` (columns of the spine that the caller supplies), or `derived` from them.

    `accepted_lag`: how old a view's values may be at prediction time before the batch warns, where that is less than the view's freshness.
    `may_be_late`: how long automation waits for a partition of the view before it predicts without it.
    """

    view: str | None = None
    """Name of a feature view: a dbt model with `meta.feature_view`."""
    version: int | None = None
    """Version of the view; left out, the newest."""
    columns: list[str] | None = None
    """Features of the view to use; left out, all."""
    accepted_lag: Duration | None = None
    """How old its values may be before the check `fresh_features` warns; left out, the view's `freshness_days`."""
    may_be_late: Delay | None = None
    """How long after the first input of a partition automation waits for that of the view; then it predicts from the view's older values, which
    `view_flags` marks when they are stale. `h`, `d` or `w`. Left out, it waits until it is there, and tells after a day."""
    request: list[str] | None = None
    """Columns of the spine that the caller knows at prediction time, instead of a `view`."""
    derived: dict[Name, str] | None = None
    """Name -> SQL expression over the columns of `request`, instead of a `view`."""

    @model_validator(mode="after")
    def _one_kind(self) -> "FeatureSource":
        if [self.view, self.request, self.derived].count(None) != 2:
            raise ValueError("give either `view` (with `version`, `columns`) or `request` or `derived`")
        if self.view is None and (self.version, self.columns, self.accepted_lag, self.may_be_late) != (None,) * 4:
            raise ValueError("`version`, `columns`, `accepted_lag` and `may_be_late` belong to a `view`")
        return self


class Segments(YamlModel):
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


Engine = Literal["process", "worker"]


class Worker(YamlModel):
    """The workers of LitServe that a version has under the engine `worker`. Each process that accepts requests has its own."""

    processes: Annotated[int, Field(ge=1)] = 1
    """Workers of each process that accepts requests (`MLOPS_SERVING_PROCESSES`)."""
    max_batch_size: Annotated[int, Field(ge=1)] = 64
    """The most requests that are predicted at once."""
    batch_timeout_milliseconds: Annotated[float, Field(ge=0)] = 0.0
    """How long a worker that has a request waits for more. 0: it takes those that wait already."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """From the arrival of a request to its answer; one that takes longer is answered with 504."""


class Serving(YamlModel):
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


class Solution(YamlModel):
    """One prediction problem, from its spine to its monitoring. The attributes of an `MLSolution` component."""

    name: Name
    """Name of the solution: prefix of its assets, schema of its tables, its group, its model in MLflow."""
    description: str
    """What is predicted, and when."""
    owners: Owners
    """Who answers for it: e-mail addresses or `team:<name>`."""
    problem: Problem
    """Kind of problem."""
    partitions: SolutionPartitions
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
    deployment: Deployment = Deployment()
    """Who decides that an accepted version predicts."""
    serving: Serving = Serving()
    """Which channels answer, and what a challenger may do."""
    monitoring: Monitoring = Monitoring()
    """How predictions are watched."""
    retraining: Retraining = Retraining()
    """When it is trained again."""
    resources: dict[str, StageResources] = {}
    """Name of a stage, such as `model` -> what its pod gets on Kubernetes. Models of segments have those of the stage."""

    @property
    def spine_model(self) -> str:
        """Name of the dbt model of the spine: the one that is named, or the one that is derived."""
        return self.spine.model or f"{self.name}_spine"

    @model_validator(mode="before")
    @classmethod
    def _watch_snapshots_daily(cls, attributes: Any) -> Any:
        """A solution without time has windows of a day where its YAML names none."""
        if not isinstance(attributes, Mapping) or not isinstance(attributes.get("spine"), Mapping):
            return attributes
        monitoring = attributes.get("monitoring", {})
        if "prediction_time" in attributes["spine"] or not isinstance(monitoring, Mapping):
            return attributes
        return {**attributes, "monitoring": {"window": "daily", **monitoring}}

    @model_validator(mode="after")
    def _has_what_its_time_needs(self) -> "Solution":
        of_time = {"training.window": "window", "training.holdout": "holdout"}
        stated = [name for name, field in of_time.items() if field in self.training.model_fields_set]
        if self.spine.has_time:
            if missing := [name for name in of_time if name not in stated]:
                raise ValueError(f"a solution with time needs {' and '.join(missing)}")
            if self.partitions.column == SNAPSHOT_DATE:
                raise ValueError("a solution with time needs partitions.column")
            return self
        if self.training.earlier_rows is not None:
            raise ValueError("training.earlier_rows belongs to a table with time; without one there is no time before")
        if stated:
            raise ValueError(f"{' and '.join(stated)} belong to a table with time; without one there is training.holdout_share")
        if self.training.refit:
            raise ValueError(
                "training.refit belongs to a table with time; without one the hold-out is predicted and must not be seen"
            )
        if self.partitions.cadence != "daily":
            raise ValueError(f"a table without time has a snapshot a day: leave out cadence: {self.partitions.cadence}")
        return self

    @property
    def refits(self) -> bool:
        """Whether the model that serves is fitted with the hold-out too.

        Without time it predicts the hold-out, which it must not have seen. Of labels that come late, those of the newest rows are a selection.
        """
        if not self.spine.has_time:
            return False
        if self.training.refit is not None:
            return self.training.refit
        return 2 * maximum_days(self.monitoring.performance.label_delay) <= maximum_days(self.training.holdout)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are computed: those of the problem, and those that are named by import path."""
        gated = (*self.gates.floor, *self.gates.against_champion, *self.gates.worst_slice, *self.gates.groups)
        named = [self.training.metric, *gated, *self.monitoring.performance.tolerances]
        return tuple(dict.fromkeys([*metric_names(self.problem), *(name for name in named if ":" in name)]))
