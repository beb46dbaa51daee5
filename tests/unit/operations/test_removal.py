"""What the removal of a solution deletes: what only it uses, and nothing that another one reads."""

from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.operations.removal import Removal, plan_removal


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return (
        Settings.from_variables({"MLOPS_HOME": str(tmp_path)}) if hasattr(Settings, "from_variables") else Settings(home=tmp_path)
    )


def names(removal: Removal) -> set[str]:
    project = current_project()
    paths = {path.relative_to(project.definitions_directory).as_posix() for path in removal.folders}
    return paths | {path.relative_to(project.dbt_project / "models").as_posix() for path in removal.files}


def test_what_only_one_solution_uses_goes_with_it(settings: Settings) -> None:
    removal = plan_removal(settings, "employment")
    assert names(removal) == {
        "employment",
        "census_features",
        "features/census/person.sql",
        "features/census/person.yml",
        "solutions/employment/employment_spine.sql",
        "solutions/employment/employment_spine.yml",
        "staging/census.sql",
        "staging/census.yml",
    }
    assert removal.views == ("person",)
    assert "raw table census and its source" in removal.kept
    assert any("lake: it does not run" in line for line in removal.kept)
    assert any("MLflow with its aliases" in line for line in removal.kept)


def test_what_another_solution_uses_stays(settings: Settings) -> None:
    removal = plan_removal(settings, "arrival_delay")
    assert names(removal) == {
        "arrival_delay",
        "solutions/arrival_delay/arrival_delay_spine.sql",
        "solutions/arrival_delay/arrival_delay_spine.yml",
    }
    [shared] = [line for line in removal.kept if line.startswith("dbt models that others use")]
    assert "flights" in shared


def test_a_name_that_is_none_is_refused(settings: Settings) -> None:
    with pytest.raises(StackError, match=r"declares the solution 'employ'") as error:
        plan_removal(settings, "employ")
    assert "employment" in error.value.remedy
