"""Which environments have branches. What a branch has is in `tests/solutions/test_branch_environments.py`."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.operations.branches.environments import make_branch


@pytest.mark.parametrize(
    ("elsewhere", "problem"),
    [(None, "There is no installation"), ("https://mlflow.example.org", "MLOPS_MLFLOW_URL names another server")],
)
def test_an_environment_that_has_no_branch_is_refused_and_nothing_is_left(
    elsewhere: str | None, problem: str, tmp_path: Path
) -> None:
    project = replace(current_project(), state_directory=tmp_path / "state")
    with pytest.raises(StackError, match=problem):
        make_branch(project, Settings(home=tmp_path / "none", mlflow_server=elsewhere), "a-change", lambda text: None)
    assert list(tmp_path.iterdir()) == []
