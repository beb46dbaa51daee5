"""The review of a change: the working tree beside a revision, part by part. Nothing of the installation's state is written."""

import importlib
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.features.contracts import recorded_contracts
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import LakeError
from mlops_assets.local.prepare import prepare
from mlops_assets.operations.review import gates
from mlops_assets.operations.review.broken_contracts import (
    BrokenContract,
    BrokenModel,
    Contracts,
    RevisionParts,
    find_broken_contracts,
    find_broken_models,
    read_live_models,
    read_parts,
)
from mlops_assets.operations.review.dbt_changes import DbtChanges, find_dbt_changes
from mlops_assets.operations.review.definition_changes import (
    DefinitionChange,
    compare_dumps,
    compare_solutions,
    load_errors,
    removed_gates,
)
from mlops_assets.operations.review.definitions_dump import dump_definitions
from mlops_assets.operations.review.effects import Effects, Scope, review_effects
from mlops_assets.operations.review.revision import Dump, checked_out, dumped
from mlops_assets.schema.configuration_errors import nearest


@dataclass(frozen=True)
class Review:
    """What a change does to a project since `commit`, which `reference` named. `live_models` is None where it is not known which there are."""

    reference: str
    commit: str
    definitions: tuple[DefinitionChange, ...]
    dbt: DbtChanges
    broken_contracts: tuple[BrokenContract, ...]
    live_models: tuple[str, ...] | None
    broken_models: tuple[BrokenModel, ...]
    effects: Effects
    gates: tuple[gates.Gate, ...]

    @property
    def breaks(self) -> bool:
        """Whether a gate fails."""
        return any(gate.outcome == "failed" for gate in self.gates)


def review_change(
    settings: Settings, reference: str, *, scope: Scope, allowed: Collection[str], report: Callable[[str], None]
) -> Review:
    """Compare the working tree of the current project with the commit where it and `reference` parted.

    `scope` is how far the comparison goes, `allowed` are names of gates that may fail; `report` hears what takes time.
    Raises StackError when one of both cannot be loaded.
    """
    if unknown := sorted(set(allowed) - set(gates.MEANINGS)):
        raise StackError(f"There is no gate {unknown[0]!r}.", remedy=f"Gates: {nearest(unknown[0], sorted(gates.MEANINGS))}")
    project = current_project()
    report(f"reading {reference}")
    with tempfile.TemporaryDirectory(prefix="mlops_diff_") as scratch, checked_out(project, reference) as revision:
        report("loading the definitions of before and after")
        with dumped(revision, Path(scratch)) as wait:
            after_dump = _load_definitions(settings, project)
            before_dump = wait()
        report("comparing the dbt models")
        dbt = find_dbt_changes(
            settings, before=revision.project.dbt_project, after=project.dbt_project, target=Path(scratch) / "dbt"
        )
        before, after = _parts(revision.project), _parts(project)
        broken = find_broken_contracts(before, after, _recorded(settings))
        models = read_live_models(settings)
        broken_models = find_broken_models(models or [], before, after)
        effects = review_effects(
            settings,
            project,
            before=before,
            after=after,
            dbt=dbt,
            scope=scope,
            folder=Path(scratch) / "state",
            report=report,
        )
        obstacle = None if models is not None else f"{settings.home} has no deployed models: it is not known which are live"
        outcomes = (
            gates.judge(gates.DEFINITIONS, load_errors(before_dump, after_dump), allowed=allowed),
            gates.judge(
                gates.CONTRACTS, [f"{each.view} version {each.version}: {each.problem}" for each in broken], allowed=allowed
            ),
            gates.judge(
                gates.LIVE_MODELS,
                [f"{each.label}: {each.problem}" for each in broken_models],
                allowed=allowed,
                obstacle=obstacle,
            ),
            gates.judge(gates.CHECKS, removed_gates(before_dump, after_dump), allowed=allowed),
            *([_judge_performance(effects, allowed)] if scope.trains else []),
        )
        changes = compare_dumps(before_dump, after_dump)
        return Review(
            reference=revision.reference,
            commit=revision.commit,
            definitions=(*compare_solutions(before.solutions, after.solutions), *changes),
            dbt=dbt,
            broken_contracts=tuple(broken),
            live_models=None if models is None else tuple(model.label for model in models),
            broken_models=tuple(broken_models),
            effects=effects,
            gates=outcomes,
        )


def _judge_performance(effects: Effects, allowed: Collection[str]) -> gates.Gate:
    reasons = [f"{model.solution}: {model.obstacle}" for model in effects.models if model.obstacle]
    reasons += [
        f"{model.solution}: {model.relabelled} labels are others than before" for model in effects.models if model.relabelled
    ]
    problems = [problem for model in effects.models for problem in model.problems]
    return gates.judge(gates.PERFORMANCE, problems, allowed=allowed, obstacle="; ".join(reasons) or None)


def _load_definitions(settings: Settings, project: Project) -> Dump:
    prepare(settings)
    project.make_importable()
    try:
        return dump_definitions(importlib.import_module(project.entry_point).defs())
    except Exception as error:  # code of the project may raise anything
        raise StackError(f"The definitions cannot be loaded: {error}", remedy="mlops check names every fault.") from error


def _parts(project: Project) -> RevisionParts:
    solutions = declared_solutions(project.definitions_directory).solutions
    return read_parts(solutions, FeatureRegistry.from_manifest(project.dbt_manifest))


def _recorded(settings: Settings) -> Contracts:
    """The contracts as the views were first built; none where no lake runs, so that what the revision declares counts."""
    with suppress(LakeError), Lake.from_settings(settings).connect(read_only=True) as connection:
        return recorded_contracts(connection)
    return {}
