"""Contracts of feature views that a change breaks, and the live models that read what is gone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.feature_store.usage import DeployedModel, deployed_models, live_models, view_uses
from mlops_assets.features.contracts import compare_contract, declared_columns
from mlops_assets.schema.solution import Solution

Contracts = Mapping[tuple[str, int], Mapping[str, str]]
"""(view, version) -> its columns with their types."""


@dataclass(frozen=True)
class BrokenContract:
    """A version of a feature view that loses or retypes columns: `problem` in words, and the solutions that use it."""

    view: str
    version: int
    problem: str
    solutions: tuple[str, ...]


@dataclass(frozen=True)
class BrokenModel:
    """A version in production that cannot go on predicting, and why."""

    label: str
    problem: str


@dataclass(frozen=True)
class RevisionParts:
    """What contracts are read from: the solutions and the dbt models of a revision, with the columns of its feature views."""

    solutions: Mapping[str, Solution]
    registry: FeatureRegistry
    contracts: Contracts


def read_parts(solutions: Mapping[str, Solution], registry: FeatureRegistry) -> RevisionParts:
    """Return the parts of a revision; the types of columns are as DuckDB names them."""
    with duckdb.connect() as connection:
        contracts = {key: declared_columns(connection, view) for key, view in registry.views.items()}
    return RevisionParts(solutions, registry, contracts)


def find_broken_contracts(before: RevisionParts, after: RevisionParts, recorded: Contracts) -> list[BrokenContract]:
    """Return the versions of views that break what the revision before declared, or what was `recorded` when they were first built."""
    uses = view_uses(before.solutions.values(), before.registry)
    broken = []
    for (view, version), declared in sorted(before.contracts.items()):
        users = tuple(sorted({use.solution for use in uses if (use.view, use.version) == (view, version)}))
        if (view, version) not in after.contracts:
            broken.append(BrokenContract(view, version, "it is gone", users))
            continue
        expected = {**declared, **recorded.get((view, version), {})}
        change = compare_contract(expected, after.contracts[view, version])
        if change.breaking:
            broken.append(BrokenContract(view, version, str(change), users))
    return broken


def read_live_models(settings: Settings) -> list[DeployedModel] | None:
    """Return the versions in production as this installation has them; None where it has no models and cannot tell."""
    return live_models(deployed_models(settings)) if settings.serving_directory.is_dir() else None


def find_broken_models(models: Sequence[DeployedModel], before: RevisionParts, after: RevisionParts) -> list[BrokenModel]:
    """Return the live `models` that read a column that is gone or has another type, or whose solution is gone.

    What a model derives from its request is in its own bundle, and breaks with the columns of the request alone.
    """
    broken = []
    for model in models:
        if model.solution not in after.solutions:
            broken.append(BrokenModel(model.label, f"the solution {model.solution} is declared no more"))
            continue
        former, present = (_columns(model, parts) for parts in (before, after))
        change = compare_contract({name: former[name] for name in model.features if name in former}, present)
        if change.breaking:
            broken.append(BrokenModel(model.label, f"it reads {change}"))
    return broken


def _columns(model: DeployedModel, parts: RevisionParts) -> dict[str, str]:
    """The columns that a model may read, of its spine and of its versions of feature views, with their types."""
    solution = parts.solutions.get(model.solution)
    spine = parts.registry.models.get(solution.spine_model) if solution else None
    columns = dict(spine.columns) if spine else {}
    for key in model.views:
        columns |= parts.contracts.get(key, {})
    return columns
