"""The challenger of a solution that tries none any more: servers are told, and an earlier one is taken away."""

from pathlib import Path

import dagster as dg
from clinic import solution_inputs

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.challenger import build_challenger
from mlops_assets.serving.active import CHALLENGER_LINK, activate, linked_bundle, read_options


def test_without_a_trial_the_servers_try_nothing(tmp_path: Path) -> None:
    inputs, settings = solution_inputs("daily"), Settings(home=tmp_path, mlflow_port=1)
    folder = settings.serving_directory / inputs.name
    (folder / "4").mkdir(parents=True)
    activate(folder / "4", CHALLENGER_LINK)
    resources = {"registry": ModelRegistry.from_settings(settings), "settings": settings}
    result = dg.materialize([build_challenger(inputs)], resources=resources)
    assert linked_bundle(folder, CHALLENGER_LINK) is None
    assert read_options(folder) == inputs.solution.serving
    [materialization] = result.asset_materializations_for_node("clinic__challenger")
    assert materialization.metadata["model_version"].value is None
    assert materialization.metadata["shadow"].value is False
