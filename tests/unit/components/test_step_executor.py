"""The executor of steps that the settings name."""

from pathlib import Path

import dagster as dg

from mlops_assets.components.step_executor import step_executor
from mlops_assets.core.settings import Settings


def test_steps_share_the_process_of_a_run_unless_each_is_to_have_a_pod(tmp_path: Path) -> None:
    assert step_executor(Settings(home=tmp_path)) is dg.in_process_executor
    assert step_executor(Settings(home=tmp_path, steps="pods")).name == "k8s"
