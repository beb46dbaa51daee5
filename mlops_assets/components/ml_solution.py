"""`MLSolution`: one YAML file becomes every stage from the training dataset to the retraining decision."""

from collections.abc import Sequence
from typing import get_args

import dagster as dg
from pydantic import BaseModel

from mlops_assets.components.derived_features import check_derived
from mlops_assets.components.solution_columns import check_columns
from mlops_assets.components.stages import STAGES, stages, stages_of
from mlops_assets.components.tagged_models import build_own_models
from mlops_assets.core.check_rules import SERVED_VERSION
from mlops_assets.core.keys import CHECK_EVENT_TAG, job_name
from mlops_assets.core.project import current_project
from mlops_assets.core.schedules import check_schedule
from mlops_assets.deployment.challenger_sensor import build_challenger_sensor
from mlops_assets.deployment.champion_sensor import build_champion_sensor
from mlops_assets.deployment.served_version import build_served_version_sensor
from mlops_assets.deployment.served_version_check import build_served_version, served_channels
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel, FeatureRegistry, UnknownModelError
from mlops_assets.features.generated.project_files import spine_of
from mlops_assets.monitoring.monitor import check_monitors
from mlops_assets.monitoring.retraining_schedule import build_retraining_schedules
from mlops_assets.monitoring.retraining_sensor import build_retraining_sensor
from mlops_assets.predictions.prediction_log_sensor import build_prediction_log_sensor
from mlops_assets.schema.configuration_errors import ConfigurationError, nearest
from mlops_assets.schema.duration import maximum_days
from mlops_assets.schema.metric_names import check_metric
from mlops_assets.schema.solution import FeatureSource, Solution
from mlops_assets.schema.training_rules import check_training
from mlops_assets.serving.columns import check_column
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.stages.stage import Job, Stage
from mlops_assets.training.gate import check_gates

_SEGMENT_TYPES = ("varchar", "text", "string", "tinyint", "smallint", "integer", "int", "bigint")


class MLSolution(dg.Component):
    """A prediction problem operated end to end. Its attributes are `mlops_assets.schema.solution.Solution`."""

    def __init__(self, solution: Solution):
        self.solution = solution

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of the attributes."""
        return Solution

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "MLSolution":
        """Take the validated attributes as they are."""
        return cls(Solution.model_validate(attributes))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets, checks and jobs. Raises ConfigurationError for a model, column or class that does not exist."""
        check_schedule(self.solution.schedule)
        if self.solution.spine.table is not None:
            spine_of(self.solution, current_project())
        registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
        inputs = resolve_inputs(self.solution, registry)
        keys = {job: [inputs.key(name) for name in stages_of(job, self.solution)] for job in get_args(Job)}
        assets = build_own_models(self.solution.name, self.solution.partitions)
        assets += [self._asset(stage, inputs) for stage in stages(self.solution)]
        if segments := inputs.of_segments:
            of_segments = [stage for stage in STAGES if stage.has_segments]
            keys["segments"] = [segments.key(stage.name) for stage in of_segments]
            assets += [self._asset(stage, segments) for stage in of_segments]
        jobs = [
            dg.define_asset_job(
                job_name(inputs.name, purpose),
                selection=dg.AssetSelection.assets(*of_job),
                description=f"{purpose.capitalize()} of {inputs.name}: {', '.join(key.path[-1] for key in of_job)}.",
            )
            for purpose, of_job in keys.items()
        ]
        sensors = [
            build_champion_sensor(places) for places in ([inputs.deployment_target], inputs.segment_deployment_targets) if places
        ]
        sensors += [
            build_challenger_sensor(inputs.name, self.solution.serving),
            build_retraining_sensor(inputs.name),
            build_prediction_log_sensor(inputs.name, inputs.partitions, self.solution.serving.log_interval_seconds),
        ]
        sensors.append(
            build_served_version_sensor(
                inputs.name,
                SERVED_VERSION.name,
                segments=self.solution.segments.values if self.solution.segments else [],
                channels=served_channels(inputs),
            )
        )
        return dg.Definitions(
            assets=assets,
            asset_checks=[build_served_version(inputs)],
            jobs=jobs,
            sensors=sensors,
            schedules=build_retraining_schedules(inputs),
        )

    def _asset(self, stage: Stage, inputs: SolutionInputs) -> dg.AssetsDefinition:
        """The asset of a stage with what makes it follow its inputs, how old it may become, and what its failed checks are called."""
        event = {CHECK_EVENT_TAG: stage.check_event} if stage.check_event else {}
        return stage.build(inputs).map_asset_specs(
            lambda spec: spec.replace_attributes(
                automation_condition=stage.condition,
                freshness_policy=None if inputs.by_segment else stage.freshness(self.solution),
                tags={**spec.tags, **event},
            )
        )


def resolve_inputs(solution: Solution, registry: FeatureRegistry) -> SolutionInputs:
    """Find the dbt models that `solution` names and check every column it uses. Raises ConfigurationError."""
    try:
        spine = registry.model(solution.spine_model)
    except UnknownModelError as error:
        if solution.spine.table is not None:
            raise ConfigurationError(("spine", "table"), f"{error} yet: run `mlops prepare`") from error
        raise ConfigurationError(("spine", "model"), f"{error}; {nearest(solution.spine_model, error.available)}") from error
    for field in ("key", "prediction_time", "label", "label_time"):
        _require_column(spine, getattr(solution.spine, field), ("spine", field))
    _require_column(spine, solution.partitions.column, ("partitions", "column"))
    if spine.time_zone not in (None, solution.partitions.time_zone):
        message = f"the dates of {spine.name} are those of {spine.time_zone}: its meta.time_zone, or that of its folder in dbt_project.yml"
        raise ConfigurationError(("partitions", "time_zone"), message)
    views: list[SelectedView] = []
    request = [column for source in solution.features for column in source.request or []]
    derived: dict[str, str] = {}
    for position, source in enumerate(solution.features):
        if source.request is not None:
            for number, column in enumerate(source.request):
                _require_column(spine, column, ("features", position, "request", number))
                _forbid_label(solution, column, ("features", position, "request", number))
            names: Sequence[str] = source.request
        elif source.derived is not None:
            columns = {column: spine.columns.get(column, "") for column in request}
            for name, expression in source.derived.items():
                check_derived(expression, columns=columns, path=("features", position, "derived", name))
            derived |= source.derived
            names = list(source.derived)
        else:
            chosen = _select_view(source, registry, spine, position)
            views.append(chosen)
            names = chosen.features
            for column in names:
                _forbid_label(solution, column, ("features", position, "view"))
    inputs = SolutionInputs(solution=solution, spine=spine, views=tuple(views), request=tuple(request), derived=derived)
    check_columns(inputs)
    for name in dict.fromkeys((solution.spine.key, *inputs.entity, *inputs.request)):
        _require_type(spine, name)
    available = [*inputs.entity, *inputs.features]
    for number, column in enumerate(solution.gates.slices):
        if column not in available:
            raise ConfigurationError(
                ("gates", "slices", number), f"{column!r} is no feature or entity key; {nearest(column, available)}"
            )
    for number, column in enumerate(solution.monitoring.drift.ignore):
        if column not in inputs.features:
            path = ("monitoring", "drift", "ignore", number)
            raise ConfigurationError(path, f"{column!r} is no feature; {nearest(column, list(inputs.features))}")
    _check_segments(inputs)
    _check_metrics(solution)
    check_gates(solution)
    check_monitors(solution, [stage.name for stage in STAGES])
    check_training(solution)
    if solution.training.sample_weight is not None:
        _require_column(spine, solution.training.sample_weight, ("training", "sample_weight"))
        _forbid_label(solution, solution.training.sample_weight, ("training", "sample_weight"))
    return inputs


def _select_view(source: FeatureSource, registry: FeatureRegistry, spine: DbtModel, position: int) -> SelectedView:
    name = str(source.view)
    try:
        view = registry.view(name, source.version)
    except UnknownModelError as error:
        field = "view" if (name, 1) not in registry.views and not any(view == name for view, _ in registry.views) else "version"
        wrong = name if field == "view" else str(source.version)
        raise ConfigurationError(("features", position, field), f"{error}; {nearest(wrong, error.available)}") from error
    for key in view.entity:
        if key not in spine.columns:
            raise ConfigurationError(
                ("features", position, "view"),
                f"{name} is keyed by {key!r}, which the spine {spine.name} lacks; add the column to it",
            )
    for number, column in enumerate(source.columns or []):
        if column not in view.features:
            raise ConfigurationError(
                ("features", position, "columns", number),
                f"{name} has no feature {column!r}; {nearest(column, list(view.features))}",
            )
    return SelectedView(
        view=view,
        features=tuple(source.columns or view.features),
        accepted_lag_days=maximum_days(source.accepted_lag) if source.accepted_lag else None,
    )


def _require_column(model: DbtModel, column: str, path: tuple[str | int, ...]) -> None:
    if column not in model.columns:
        raise ConfigurationError(
            path, f"the dbt model {model.name} has no column {column!r}; {nearest(column, list(model.columns))}"
        )


def _require_type(spine: DbtModel, column: str) -> None:
    try:
        check_column(column, spine.columns[column])
    except ValueError as error:
        raise ConfigurationError(("spine", "model"), f"{spine.name}, data_type of the column {column}: {error}") from error


def _forbid_label(solution: Solution, column: str, path: tuple[str | int, ...]) -> None:
    if column in (solution.spine.label, solution.spine.label_time):
        raise ConfigurationError(path, f"{column} is the label or tells it: it cannot be a feature or a weight")


def _check_segments(inputs: SolutionInputs) -> None:
    segments = inputs.solution.segments
    if segments is None:
        return
    available = list(dict.fromkeys([*inputs.entity, *inputs.request]))
    if segments.column not in available:
        raise ConfigurationError(
            ("segments", "column"),
            f"{segments.column!r} is no request column or entity key; {nearest(segments.column, available)}",
        )
    if (found := inputs.spine.columns[segments.column].lower()) not in _SEGMENT_TYPES:
        raise ConfigurationError(("segments", "column"), f"a segment is a text or a whole number; {segments.column} is {found}")


def _check_metrics(solution: Solution) -> None:
    named = [
        *((name, ("gates", "floor", name)) for name in solution.gates.floor),
        *((name, ("gates", "against_champion", name)) for name in solution.gates.against_champion),
        *((name, ("gates", "worst_slice", name)) for name in solution.gates.worst_slice),
    ]
    for name, path in named:
        check_metric(name, solution.problem, path)
    if solution.gates.worst_slice and not solution.gates.slices:
        raise ConfigurationError(("gates", "worst_slice"), "there are no slices to evaluate; name their columns in `slices`")
    if solution.gates.maximum_calibration_error is not None and solution.problem != "binary_classification":
        raise ConfigurationError(
            ("gates", "maximum_calibration_error"), f"only binary_classification has a calibration error, not {solution.problem}"
        )
