from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_assets.core.living_branches import oldest_branch
from mlops_assets.core.project import current_project


def test_the_oldest_branch_of_this_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = replace(current_project(), state_directory=tmp_path / ".mlops")
    assert oldest_branch(project) is None
    branches = [("late", "prod", 3), ("early", "prod", 2), ("of-another", "staging", 1)]
    for name, of, day in branches:
        folder = project.branches_directory / name
        folder.mkdir(parents=True)
        (folder / "branch.env").write_text(f"MLOPS_BRANCH_OF='{of}'\nMLOPS_BRANCH_MADE='2024-01-0{day}T10:00:00+00:00'\n")
    (project.branches_directory / "incomplete").mkdir()
    monkeypatch.setenv("MLOPS_ENV", "prod")
    assert oldest_branch(project) == datetime(2024, 1, 2, 10, tzinfo=UTC)
