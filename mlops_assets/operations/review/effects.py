"""The effects of a change on data and models: what it touches is built and trained beside production, in a scratch lake."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.core.settings import Settings
from mlops_assets.lake.tables import LakeError
from mlops_assets.operations.review.broken_contracts import RevisionParts
from mlops_assets.operations.review.build_plan import last_windows, plan_builds
from mlops_assets.operations.review.data_review import DataReview, review_data
from mlops_assets.operations.review.dbt_changes import DbtChanges
from mlops_assets.operations.review.model_review import ModelReview, review_model
from mlops_assets.operations.review.scratch_lake import ScratchLake, scratch_lake
from mlops_assets.operations.solution_parts import read_manifest, solution_parts
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

_OF_A_MODEL = ("problem", "partitions", "spine", "features", "training")
"""Sections of a solution that decide what its model is."""


@dataclass(frozen=True)
class Scope:
    """How far a review goes: whether changed models of dbt are built, whether models are trained, and how many windows are compared."""

    builds: bool
    trains: bool
    windows: int


@dataclass(frozen=True)
class Effects:
    """The compared tables and models. `data` is None when nothing was built, `models` is empty when nothing was trained."""

    data: DataReview | None = None
    models: tuple[ModelReview, ...] = ()


@dataclass(frozen=True)
class _Touched:
    """A solution that the change touches, before and after, and the dbt models behind it."""

    before: SolutionInputs
    after: SolutionInputs
    models: frozenset[str]


def review_effects(
    settings: Settings,
    project: Project,
    *,
    before: RevisionParts,
    after: RevisionParts,
    dbt: DbtChanges,
    scope: Scope,
    folder: Path,
    report: Callable[[str], None],
) -> Effects:
    """Build what is modified and all that follows in a branch of the lake in `folder`, and train the solutions that it touches.

    Raises StackError when the lake does not run, or dbt cannot build the models.
    """
    touched, not_compared = _touched(project, before, after, dbt)
    if not touched or not scope.builds:
        return Effects(DataReview((), tuple(not_compared)) if scope.builds else None)
    report("branching the lake")
    try:
        with scratch_lake(settings, folder) as scratch:
            return _review(settings, project, scratch, touched, not_compared, dbt=dbt, scope=scope, report=report)
    except LakeError as error:
        raise StackError(str(error), remedy="mlops up, or leave out --data and --models.") from error


def _review(
    settings: Settings,
    project: Project,
    scratch: ScratchLake,
    touched: list[_Touched],
    not_compared: list[str],
    *,
    dbt: DbtChanges,
    scope: Scope,
    report: Callable[[str], None],
) -> Effects:
    manifest = read_manifest(project)
    with scratch.lake.connect(read_only=True) as connection:
        windows = {each.after.name: last_windows(connection, each.before, scope.windows, scratch.snapshot) for each in touched}
        known = [(each, span) for each in touched if (span := windows[each.after.name]) is not None]
        plans = plan_builds(
            connection,
            manifest,
            built=dbt.built,
            solutions=[(each.after, each.models, span) for each, span in known],
            for_models=scope.trains,
        )
    not_compared += [f"{name}: production has no whole window with labels" for name, span in windows.items() if span is None]
    report(f"building {sum(len(plan.models) for plan in plans)} dbt models")
    data = review_data(scratch, project, manifest, plans)
    reviews = []
    for each, span in known if scope.trains else []:
        report(f"training {each.after.name} before and after")
        reviews.append(review_model(scratch, settings, each.before, each.after, span))
    return Effects(DataReview(data.tables, (*not_compared, *data.not_compared)), tuple(reviews))


def _touched(project: Project, before: RevisionParts, after: RevisionParts, dbt: DbtChanges) -> tuple[list[_Touched], list[str]]:
    """The solutions whose rows, features, label or training the change touches, and a line for each that cannot be compared."""
    touched, lines = [], []
    parts = solution_parts(project, read_manifest(project))
    used = set[str]()
    for name, solution in sorted(after.solutions.items()):
        if name not in parts:
            continue
        models = parts[name].models
        used |= models
        former = before.solutions.get(name)
        is_changed = former is None or _model_sections(former) != _model_sections(solution)
        if not is_changed and not models & set(dbt.built):
            continue
        if former is None:
            lines.append(f"{name}: the revision before has no such solution")
            continue
        try:
            inputs = resolve_inputs(former, before.registry), resolve_inputs(solution, after.registry)
        except ConfigurationError as error:
            lines.append(f"{name}: it cannot be loaded, {error}")
            continue
        touched.append(_Touched(*inputs, models))
    lines += [f"{key.split('.', 2)[2]}: no solution uses it" for key in dbt.built if key not in used]
    return touched, lines


def _model_sections(solution: Solution) -> dict[str, object]:
    return solution.model_dump(include=set(_OF_A_MODEL))
