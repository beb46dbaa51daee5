"""The check `contract` of feature views within the dbt step: before dbt runs and after it. The rule itself is in `features/contracts.py`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.feature_store.usage import ViewUse, deployed_models, live_models
from mlops_assets.features import contracts
from mlops_assets.lake.lake import Lake
from mlops_assets.stages.execution import permanent_failure


def check_contracts(
    context: dg.AssetExecutionContext,
    lake: Lake,
    settings: Settings,
    *,
    views: Mapping[dg.AssetKey, FeatureView],
    uses: Sequence[ViewUse],
    declared: bool,
) -> Iterator[dg.AssetCheckResult]:
    """Compare the views of this run with their contracts: as `declared`, before dbt runs, or else as built.

    As declared, only a broken contract gives a result, and the run ends with it. As built, every view has one, and new columns
    are recorded.
    """
    checked = {key.asset_key for key in context.selected_asset_check_keys if key.name == contracts.CONTRACT.name}
    views = {key: view for key, view in views.items() if key in checked or key in context.selected_asset_keys}
    if not views:
        return
    read = contracts.declared_columns if declared else contracts.built_columns
    with lake.connect(read_only=True) as connection:
        recorded = contracts.recorded_contracts(connection)
        changes = {
            key: contracts.compare_contract(recorded.get((view.name, view.version), {}), read(connection, view))
            for key, view in views.items()
        }
    models = live_models(deployed_models(settings)) if any(change.breaking for change in changes.values()) else []
    broken = []
    for key, change in changes.items():
        if declared and not change.breaking:
            continue
        solutions = sorted({use.solution for use in uses if (use.view, use.version) == (views[key].name, views[key].version)})
        readers = [model.label for model in models if (views[key].name, views[key].version) in model.views]
        result = contracts.check_contract(views[key], change, solutions=solutions, live_models=readers)
        if change.breaking:
            broken.append(str(result.description))
        if key in checked:
            yield result
    if declared and broken:
        raise permanent_failure(" ".join([*broken, "Nothing was built."]))
    if not declared:
        contracts.record_additions(
            lake, [(views[key], change.added) for key, change in changes.items()], author=context.run.run_id
        )


class DbtContext:
    """The context as dagster-dbt reads it to choose what dbt runs: without the contracts of views that are not built."""

    def __init__(self, context: dg.AssetExecutionContext):
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    @property
    def selected_asset_check_keys(self) -> set[dg.AssetCheckKey]:
        """The checks of the run that dbt evaluates, and contracts of what it builds."""
        built = self._context.selected_asset_keys
        return {
            key
            for key in self._context.selected_asset_check_keys
            if key.name != contracts.CONTRACT.name or key.asset_key in built
        }
