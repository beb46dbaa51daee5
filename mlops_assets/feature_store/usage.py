"""Users of a feature view: the solutions whose YAML names it, and the models in production that were trained on it.

Read from the solution files, the serving bundles and the model registry's REST interface; there is no list of its own. How data
flows between dbt models belongs to `feature_store/column_lineage.py`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlops_assets.clients.bundle_record import record_file
from mlops_assets.clients.champion import RegistryUnreachableError, registered_champion
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.model_problems import UnknownModelError
from mlops_assets.feature_store.registry import FeatureRegistry, FeatureView
from mlops_assets.schema.declarations import Declarations, read_declarations
from mlops_assets.schema.solution import Solution

_COMPONENT = "MLSolution"


@dataclass(frozen=True)
class ViewUse:
    """One solution reads `features` of one version of a view. `pinned` is False when its YAML names no version."""

    solution: str
    view: str
    version: int
    features: tuple[str, ...]
    pinned: bool


@dataclass(frozen=True)
class DeclaredSolutions:
    """The solutions of a `defs` folder by name, and a line for each file that cannot be read as one."""

    solutions: dict[str, Solution]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class DeployedModel:
    """A promoted model version: the segment whose rows it predicts (None: all), the feature views (name, version) and features it reads.

    `champion` is None when the model registry does not answer, so that it is not known which version is live.
    """

    solution: str
    version: int
    segment: str | None
    views: tuple[tuple[str, int], ...]
    features: tuple[str, ...]
    champion: bool | None

    @property
    def label(self) -> str:
        """The version as messages name it."""
        suffix = {True: " (champion)", False: "", None: " (promoted; champion unknown)"}[self.champion]
        return f"{self.solution} version {self.version}{suffix}"


def declared_solutions(directory: Path) -> DeclaredSolutions:
    """The solutions declared in `<directory>/*/defs.yaml`; read again when a file changes."""
    return _validate(read_declarations(directory))


@lru_cache(maxsize=4)
def _validate(declarations: Declarations) -> DeclaredSolutions:
    solutions: dict[str, Solution] = {}
    problems = list(declarations.problems)
    for declaration in declarations.of(_COMPONENT):
        try:
            solution = Solution.model_validate(declaration.attributes)
        except ValidationError as error:
            place = f"{declaration.file.parent.name}/{declaration.file.name}"
            problems.append(f"{place}: {'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}")
            continue
        solutions[solution.name] = solution
    return DeclaredSolutions(solutions=solutions, problems=tuple(problems))


def view_uses(solutions: Iterable[Solution], registry: FeatureRegistry) -> list[ViewUse]:
    """Every use of a feature view by a solution. A view or version that does not exist counts as the solution names it."""
    uses = []
    for solution in solutions:
        for source in solution.features:
            if source.view is None:
                continue
            try:
                view: FeatureView | None = registry.view(source.view, source.version)
            except UnknownModelError:
                # The solution itself fails to load with a message of its own; what it pins is the point here.
                view = None
            uses.append(
                ViewUse(
                    solution=solution.name,
                    view=source.view,
                    version=view.version if view else source.version or 1,
                    features=tuple(source.columns or (view.features if view else ())),
                    pinned=source.version is not None,
                )
            )
    return uses


def deployed_models(settings: Settings) -> list[DeployedModel]:
    """The model versions that were promoted on this machine, in order of solution and version.

    The bundle of one that was only evaluated lies there too, without the record of its acceptance.
    """
    models = []
    for folder in _solution_folders(settings):
        paths = sorted(folder.glob("[0-9]*/contract.json"))
        contracts = [_contract(path) for path in paths if record_file(path.parent).is_file()]
        if not contracts:
            continue
        segments = {_segment(contract) for contract in contracts}
        champions = {segment: _champion(settings, folder.name, segment) for segment in segments}
        models += [
            DeployedModel(
                solution=folder.name,
                version=contract["version"],
                segment=_segment(contract),
                views=tuple((view["name"], view["version"]) for view in contract["feature_views"]),
                features=tuple(feature["name"] for feature in contract["features"]),
                champion=contract["version"] == champion if answers else None,
            )
            for contract in contracts
            for answers, champion in [champions[_segment(contract)]]
        ]
    return sorted(models, key=lambda model: (model.solution, model.version))


def live_models(models: Sequence[DeployedModel]) -> list[DeployedModel]:
    """The champions; of a solution, or its segment, whose champion is unknown the newest promoted version."""
    newest = {(model.solution, model.segment): model for model in models}
    return [
        model for model in models if model.champion or (model.champion is None and newest[model.solution, model.segment] == model)
    ]


def _solution_folders(settings: Settings) -> list[Path]:
    directory = settings.serving_directory
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))


def _contract(path: Path) -> dict[str, Any]:
    # The validating reader belongs to the servers, and loads Arrow.
    return json.loads(path.read_text())


def _segment(contract: dict[str, Any]) -> str | None:
    return (contract.get("segment") or {}).get("value")


def _champion(settings: Settings, solution: str, segment: str | None) -> tuple[bool, int | None]:
    """Whether the model registry answers, and the champion's version."""
    try:
        champion = registered_champion(settings, solution, segment)
    except RegistryUnreachableError:
        return False, None
    return True, champion.version if champion else None
