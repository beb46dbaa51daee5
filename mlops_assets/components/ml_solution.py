"""`MLSolution`: one YAML file becomes every stage from the training dataset to the retraining decision."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import dagster as dg

from mlops_assets.components.derived_features import check_derived
from mlops_assets.components.group_checks import check_groups
from mlops_assets.components.scaffolding import MLSolutionScaffolder
from mlops_assets.components.solution_columns import check_columns
from mlops_assets.components.stages import STAGES, check_resources, stages, stages_of
from mlops_assets.components.tagged_models import build_own_models
from mlops_assets.components.yaml_component import YamlComponent
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.keys import CHECK_EVENT_TAG, job_name
from mlops_assets.core.project import current_project
from mlops_assets.core.schedules import check_schedule
from mlops_assets.deployment.served_version_check import build_served_version
from mlops_assets.feature_store.model_problems import UnknownModelError
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel, FeatureRegistry
from mlops_assets.features.generated.project_files import spine_of
from mlops_assets.monitoring.monitor import check_monitors
from mlops_assets.monitoring.retraining_schedule import build_retraining_schedules
from mlops_assets.monitoring.retraining_sensor import build_retraining_sensor
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector, nearest
from mlops_assets.schema.duration import delay_time, maximum_days
from mlops_assets.schema.metric_names import check_metric
from mlops_assets.schema.section_rules import check_sections
from mlops_assets.schema.solution import FeatureSource, Solution
from mlops_assets.schema.training_rules import check_training
from mlops_assets.serving.columns import check_column
from mlops_assets.stages.inputs import SolutionInputs, StageConduct
from mlops_assets.stages.stage import Job, Stage
from mlops_assets.training.gate import check_gates

_SEGMENT_TYPES = ("varchar", "text", "string", "tinyint", "smallint", "integer", "int", "bigint")


@dg.scaffold_with(MLSolutionScaffolder)
class MLSolution(YamlComponent):
    """A prediction problem operated end to end. Its attributes are `mlops_assets.schema.solution.Solution`.

    `inputs` are there once its definitions are built.
    """

    model = Solution

    def __init__(self, solution: Solution):
        self.solution = solution
        self.inputs: SolutionInputs | None = None

    def definitions(self, folder: Path, *, origin: Mapping[str, Any]) -> dg.Definitions:
        """The assets, checks and jobs. Raises ConfigurationError for a model, column or class that does not exist."""
        inputs = self.inputs = self.resolve()
        keys = {str(job): [inputs.key(name) for name in stages_of(job, self.solution)] for job in get_args(Job)}
        assets = build_own_models(self.solution.name, self.solution.partitions, origin=origin)
        assets += [self._asset(stage, inputs, origin) for stage in stages(self.solution)]
        if segments := inputs.of_segments:
            of_segments = [stage for stage in STAGES if stage.has_segments]
            keys["segments"] = [segments.key(stage.name) for stage in of_segments]
            assets += [self._asset(stage, segments, origin) for stage in of_segments]
        keys |= {key.path[-1]: [key] for key in inputs.deployments}
        jobs = [
            define_job(
                job_name(inputs.name, purpose),
                selection=dg.AssetSelection.assets(*of_job),
                description=f"{purpose.capitalize()} of {inputs.name}: {', '.join(key.path[-1] for key in of_job)}.",
            )
            for purpose, of_job in keys.items()
        ]
        return dg.Definitions(
            assets=assets,
            asset_checks=[build_served_version(inputs)],
            jobs=jobs,
            sensors=[build_retraining_sensor(inputs.deployment_target, jobs)],
            schedules=build_retraining_schedules(inputs),
        )

    def check(self) -> None:
        """Raise ConfigurationError with all that is wrong in the file. A derived spine that was not compiled yet is not looked at."""
        registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
        if self.solution.spine.table is not None and self.solution.spine_model not in registry.models:
            _check_alone(self.solution).raise_errors()
        else:
            self.resolve()

    def resolve(self) -> SolutionInputs:
        """The solution with its dbt models. Raises ConfigurationError with all that is wrong in the file."""
        solution, errors = self.solution, ErrorCollector()
        with errors.collect():
            check_schedule(solution.schedule)
        has_spine = True
        if solution.spine.table is not None:
            has_spine = False
            with errors.collect():
                spine_of(solution, current_project())
                has_spine = True
        with errors.collect():
            if has_spine:
                inputs = resolve_inputs(solution, FeatureRegistry.from_manifest(current_project().dbt_manifest))
            else:
                _check_alone(solution).raise_errors()
        errors.raise_errors()
        return inputs

    def _asset(self, stage: Stage, inputs: SolutionInputs, origin: Mapping[str, Any]) -> dg.AssetsDefinition:
        """The asset of a stage, which follows its inputs, becomes stale and names its failed checks as the stage declares."""
        conduct = StageConduct(
            condition=stage.condition_of(inputs),
            freshness=None if inputs.by_segment else stage.freshness(self.solution),
            tags={CHECK_EVENT_TAG: stage.check_event} if stage.check_event else {},
            metadata=origin,
        )
        # Said while the asset is built: Dagster copies all of an asset to change it, for fifty solutions a twelfth of the time of loading.
        return stage.build(replace(inputs, conduct=conduct))


def resolve_inputs(solution: Solution, registry: FeatureRegistry) -> SolutionInputs:
    """Find the dbt models that `solution` names and check every column it uses. Raises ConfigurationError with all that is wrong."""
    errors = _check_alone(solution)
    try:
        spine = registry.model(solution.spine_model)
    except UnknownModelError as error:
        if solution.spine.table is not None:
            errors.add(("spine", "table"), f"{error} yet: run `mlops prepare`")
        else:
            errors.add(("spine", "model"), f"{error}; {nearest(solution.spine_model, error.available)}")
        errors.raise_errors()
        raise
    _check_spine(solution, spine, errors)
    inputs, is_whole = _resolve_features(solution, registry, spine, errors)
    check_columns(inputs, errors)
    for name in dict.fromkeys((solution.spine.key, *inputs.entity, *inputs.request)):
        if name in spine.columns:
            with errors.collect():
                _require_type(spine, name)
    # A view that does not exist would have the features that these name.
    if is_whole:
        _check_named_features(inputs, errors)
    with errors.collect():
        _check_segments(inputs)
    errors.raise_errors()
    return inputs


def _check_alone(solution: Solution) -> ErrorCollector:
    """What is wrong with sections, metrics, gates, monitors and estimators, which need no table."""
    errors = ErrorCollector()
    check_sections(solution, errors)
    _check_metrics(solution, errors)
    for check in (check_gates, _check_stages, check_training):
        with errors.collect():
            check(solution)
    return errors


def _check_stages(solution: Solution) -> None:
    """The monitors, and what is said of their reports and the other stages."""
    check_monitors(solution, [stage.name for stage in STAGES])
    check_resources(solution)


def _check_spine(solution: Solution, spine: DbtModel, errors: ErrorCollector) -> None:
    for field in ("key", "prediction_time", "label", "label_time"):
        with errors.collect():
            _require_column(spine, getattr(solution.spine, field), ("spine", field))
    with errors.collect():
        _require_column(spine, solution.partitions.column, ("partitions", "column"))
    if spine.time_zone not in (None, solution.partitions.time_zone):
        message = f"the dates of {spine.name} are those of {spine.time_zone}: its meta.time_zone, or that of its folder in dbt_project.yml"
        errors.add(("partitions", "time_zone"), message)
    if (weight := solution.training.sample_weight) is not None:
        with errors.collect():
            _require_column(spine, weight, ("training", "sample_weight"))
            _forbid_label(solution, weight, ("training", "sample_weight"))


def _resolve_features(
    solution: Solution, registry: FeatureRegistry, spine: DbtModel, errors: ErrorCollector
) -> tuple[SolutionInputs, bool]:
    """The inputs with the features that exist, and whether all do."""
    views: list[SelectedView] = []
    request = [column for source in solution.features for column in source.request or []]
    derived: dict[str, str] = {}
    is_whole = True
    for position, source in enumerate(solution.features):
        for number, column in enumerate(source.request or []):
            with errors.collect():
                _require_column(spine, column, ("features", position, "request", number))
                _forbid_label(solution, column, ("features", position, "request", number))
        if source.derived is not None:
            columns = {column: spine.columns.get(column, "") for column in request if column in spine.columns}
            for name, expression in source.derived.items():
                with errors.collect():
                    check_derived(expression, columns=columns, path=("features", position, "derived", name))
            derived |= source.derived
        if source.view is not None:
            chosen = None
            with errors.collect():
                chosen = _select_view(source, registry, spine, position)
            if chosen is None:
                is_whole = False
                continue
            views.append(chosen)
            for column in chosen.features:
                with errors.collect():
                    _forbid_label(solution, column, ("features", position, "view"))
    inputs = SolutionInputs(solution=solution, spine=spine, views=tuple(views), request=tuple(request), derived=derived)
    return inputs, is_whole


def _check_named_features(inputs: SolutionInputs, errors: ErrorCollector) -> None:
    """Collect names of slices and of ignored features that are none."""
    solution = inputs.solution
    available = [*inputs.entity, *inputs.features]
    for number, column in enumerate(solution.gates.slices):
        if column not in available:
            message = f"{column!r} is no feature or entity key; {nearest(column, available)}"
            errors.add(("gates", "slices", number), message)
    check_groups(inputs, errors)
    for number, column in enumerate(solution.monitoring.drift.ignore):
        if column not in inputs.features:
            path = ("monitoring", "drift", "ignore", number)
            errors.add(path, f"{column!r} is no feature; {nearest(column, list(inputs.features))}")


def _select_view(source: FeatureSource, registry: FeatureRegistry, spine: DbtModel, position: int) -> SelectedView:
    name = str(source.view)
    try:
        view = registry.view(name, source.version)
    except UnknownModelError as error:
        field = "view" if (name, 1) not in registry.views and not any(view == name for view, _ in registry.views) else "version"
        wrong = name if field == "view" else str(source.version)
        raise ConfigurationError(("features", position, field), f"{error}; {nearest(wrong, error.available)}") from error
    errors = ErrorCollector()
    for key in view.entity:
        if key not in spine.columns:
            message = f"{name} is keyed by {key!r}, which the spine {spine.name} lacks; add the column to it"
            errors.add(("features", position, "view"), message)
    for number, column in enumerate(source.columns or []):
        if column not in view.features:
            message = f"{name} has no feature {column!r}; {nearest(column, list(view.features))}"
            errors.add(("features", position, "columns", number), message)
    errors.raise_errors()
    return SelectedView(
        view=view,
        features=tuple(source.columns or view.features),
        accepted_lag_days=maximum_days(source.accepted_lag) if source.accepted_lag else None,
        may_be_late=delay_time(source.may_be_late) if source.may_be_late else None,
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
    data_type = inputs.spine.columns.get(segments.column, "").lower()
    if data_type not in _SEGMENT_TYPES:
        message = f"a segment is a text or a whole number; {segments.column} is {data_type or 'of no declared type'}"
        raise ConfigurationError(("segments", "column"), message)


def _check_metrics(solution: Solution, errors: ErrorCollector) -> None:
    for section in ("floor", "against_champion", "worst_slice"):
        for name in getattr(solution.gates, section):
            with errors.collect():
                check_metric(name, solution.problem, ("gates", section, name))
    for name in solution.monitoring.performance.tolerances:
        with errors.collect():
            check_metric(name, solution.problem, ("monitoring", "performance", "tolerances", name))
    if solution.gates.worst_slice and not solution.gates.slices:
        errors.add(("gates", "worst_slice"), "there are no slices to evaluate; name their columns in `slices`")
    if solution.gates.maximum_calibration_error is not None and solution.problem != "binary_classification":
        message = f"only binary_classification has a calibration error, not {solution.problem}"
        errors.add(("gates", "maximum_calibration_error"), message)
