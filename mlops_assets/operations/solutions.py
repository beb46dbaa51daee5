"""The state of solutions for `mlops status`: champion, last partition, failing checks. Also the YAML that declares one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mlops_assets.clients.approvals import read_approvals, waiting_versions
from mlops_assets.clients.asset_state import SOLUTION_TAG, STAGE_TAG, AssetState, ancestors
from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.champion import RegistryUnreachableError, registered_champion
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings

if TYPE_CHECKING:
    from mlops_assets.schema.solution import Solution

_CONFIGURATION_ERROR = "configuration_error/"


def declared_solution(name: str) -> "Solution":
    """The solution's YAML. Raises StackError when no file of `defs/` declares it."""
    from mlops_assets.feature_store.usage import declared_solutions

    found = declared_solutions(current_project().definitions_directory).solutions.get(name)
    if found is None:
        raise StackError(f"No file of defs/ declares the solution {name!r}.", remedy="mlops status")
    return found


def solution_states(settings: Settings, assets: Mapping[str, AssetState]) -> dict[str, dict[str, object]]:
    """One entry a solution, by name, with values that JSON can hold. `failing_checks` are those of everything the solution needs."""
    solutions: dict[str, dict[str, AssetState]] = {}
    for asset in assets.values():
        if SOLUTION_TAG in asset.tags:
            solutions.setdefault(asset.tags[SOLUTION_TAG], {})[asset.tags[STAGE_TAG]] = asset
    waiting = _waiting(settings, solutions)
    return {
        name: {
            "champion": _champion_version(settings, name),
            "waits_for_approval": waiting[name],
            "last_partition": max((end for _, end in stages["predictions"].ranges), default=None),
            "failing_checks": [
                f"{key}: {check}"
                for key in sorted(ancestors(assets, [stage.key for stage in stages.values()]))
                for check in assets[key].failing_checks
            ],
            "warnings": [f"{stage.key}: {check}" for _, stage in sorted(stages.items()) for check in stage.warning_checks],
        }
        for name, stages in sorted(solutions.items())
    }


def _waiting(settings: Settings, solutions: Iterable[str]) -> dict[str, list[str]]:
    """The versions of each of `solutions` that wait for a person, with the segment of one that has one."""
    versions: dict[str, list[str]] = {name: [] for name in solutions}
    try:
        entries = waiting_versions(read_approvals(settings.approvals_file, Signer(settings.signing_key_file)))
    except EvidenceError:
        return {name: ["unknown, the record was changed: mlops approvals"] for name in versions}
    for entry in entries:
        if entry.solution in versions:
            versions[entry.solution].append(f"{entry.version}{f' ({entry.segment})' if entry.segment else ''}")
    return versions


def _champion_version(settings: Settings, solution: str) -> int | None:
    try:
        champion = registered_champion(settings, solution)
    except RegistryUnreachableError:
        # `mlops status` shows the registry's state in its own row.
        return None
    return champion.version if champion else None


def configuration_errors(assets: Mapping[str, AssetState]) -> list[str]:
    """What is wrong in the folders of `defs/` that were not loaded: `file:line: message`, a line each."""
    return [
        line.removeprefix("- ").strip("`")
        for asset in assets.values()
        if asset.key.startswith(_CONFIGURATION_ERROR)
        for line in asset.description.splitlines()
        if line.startswith("- ")
    ]
