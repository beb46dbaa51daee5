"""The bundles that the store keeps: those that predict or may have to at once, those that a server has, and the newest ones.

A version that is not among them stays in the model registry: whoever needs its bundle or its monitoring reference has it fetched again.
"""

import shutil

import dagster as dg

from mlops_assets.clients.aliases import CHALLENGER, CHAMPION, PREVIOUS
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.settings import Settings
from mlops_assets.serving.bundle_store import open_bundle_store, prune
from mlops_assets.serving.reports import read_reports

_NEEDED = (CHAMPION, PREVIOUS, CHALLENGER)


def prune_bundles(registry: ModelRegistry, settings: Settings, solution: str) -> list[int]:
    """Remove the bundles that nobody needs, but for the newest `MLOPS_KEPT_BUNDLES`. Returns their versions, and logs them.

    This machine's copies of the monitoring references of versions without a bundle go as well.
    """
    needed = {version for alias, version in registry.aliases(solution).items() if alias.partition("-")[0] in _NEEDED}
    for report in read_reports(settings.server_reports_directory):
        if (model := report.models.get(solution)) is not None:
            needed |= {*model.segments.values(), *([model.version] if model.version is not None else [])}
    bundles = open_bundle_store(settings).of(solution)
    removed = prune(bundles, needed=needed, keep=settings.kept_bundles)
    kept = {str(version) for version in needed | {bundle.version for bundle in bundles.stored()}}
    for folder in (settings.references_directory / solution).glob("[0-9]*"):
        if folder.name not in kept:
            # Another process may remove it as well.
            shutil.rmtree(folder, ignore_errors=True)
    if removed:
        dg.get_dagster_logger().info(f"Bundles removed, which the model registry still has: {', '.join(map(str, removed))}.")
    return removed
