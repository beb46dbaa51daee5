"""Running assets inside the test process, on the real lake and registry. No tests here."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import yaml

from mlops_assets.components.loading import load_folder
from mlops_assets.core.project import current_project

DEFS_DIRECTORY = current_project().definitions_directory


def attributes(folder: str) -> dict[str, Any]:
    """The attributes in `defs/<folder>/defs.yaml`."""
    return dict(yaml.safe_load((DEFS_DIRECTORY / folder / "defs.yaml").read_text())["attributes"])


def load_assets(*folders: str) -> list[dg.AssetsDefinition]:
    """The assets that the files in `defs/` declare."""
    return [
        asset
        for folder in folders
        for asset in load_folder(f"mlops_assets.defs.{folder}", DEFS_DIRECTORY / folder).assets or ()
        if isinstance(asset, dg.AssetsDefinition)
    ]


def materialize(
    assets: Sequence[dg.AssetsDefinition],
    keys: Sequence[str],
    *,
    first: str,
    last: str,
    resources: Mapping[str, Any],
    instance: dg.DagsterInstance | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """One run of the assets `keys` for the partitions from `first` to `last`, which may fail.

    It remembers nothing of other runs but those of the same `instance`.
    """
    tags = (
        {"dagster/partition": first}
        if first == last
        else {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    )
    return dg.materialize(
        assets,
        selection=[dg.AssetKey(key.split("/")) for key in keys],
        resources=resources,
        instance=instance,
        run_config=run_config,
        tags=tags,
        partition_key=first if first == last else None,
        raise_on_error=False,
    )


def failed_checks(result: dg.ExecuteInProcessResult) -> set[tuple[str, str]]:
    """Asset and name of the checks that did not pass."""
    return {
        (check.asset_key.to_user_string(), check.check_name) for check in result.get_asset_check_evaluations() if not check.passed
    }


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    """Keys of the assets that the run made."""
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}


def skipped(result: dg.ExecuteInProcessResult) -> set[str]:
    """Steps that the run left out."""
    return {str(event.step_key) for event in result.all_events if event.event_type_value == "STEP_SKIPPED"}


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    """Why steps failed."""
    found = []
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            data = event.step_failure_data
            described = data.user_failure_data.description if data.user_failure_data else None
            found.append(f"{event.step_key}: {described or data.error}")
    return found
