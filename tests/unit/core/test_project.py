import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project, find_project


def write_project(root: Path, text: str = "[tool.mlops]\n") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(text)
    return root


def test_this_repository_is_a_project() -> None:
    project = current_project()
    assert project.module == project.code_location == "mlops_assets"
    assert (project.definitions_directory / "flight_delay" / "defs.yaml").is_file()
    assert (project.dbt_project / "dbt_project.yml").is_file()


def test_it_is_found_from_a_folder_inside_it(tmp_path: Path) -> None:
    root = write_project(tmp_path / "company", '[project]\nname = "my-company"\n[tool.mlops]\n')
    inside = root / "a" / "b"
    inside.mkdir(parents=True)
    project = find_project(inside, {})
    assert project is not None
    assert project == Project.read(root)
    assert (project.root, project.module, project.entry_point) == (root, "my_company", "my_company.definitions")
    assert project.definitions_directory == root / "my_company" / "defs"
    assert (project.dbt_project, project.state_directory) == (root / "dbt_project", root / ".mlops")


def test_a_file_without_the_table_is_passed_over(tmp_path: Path) -> None:
    root = write_project(tmp_path / "company")
    inside = write_project(root / "library", '[project]\nname = "library"\n')
    found = find_project(inside, {})
    assert found is not None
    assert found.root == root
    assert find_project(tmp_path, {}) is None


def test_the_variable_wins(tmp_path: Path) -> None:
    here, there = write_project(tmp_path / "here"), write_project(tmp_path / "there")
    found = find_project(here, {"MLOPS_PROJECT": str(there)})
    assert found is not None
    assert found.root == there


def test_code_in_src_and_names_of_dagster(tmp_path: Path) -> None:
    text = """
[tool.dg.project]
root_module = "shop"
defs_module = "shop.ml"
code_location_name = "shop-prod"
[tool.mlops]
dbt_project = "warehouse"
state = "state"
"""
    root = write_project(tmp_path, text)
    (root / "src" / "shop" / "ml").mkdir(parents=True)
    project = Project.read(root)
    assert project.definitions_directory == root / "src" / "shop" / "ml"
    assert (project.code_location, project.definitions_module) == ("shop-prod", "shop.ml")
    assert (project.dbt_project, project.state_directory) == (root / "warehouse", root / "state")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no pyproject.toml in"),
        ("[tool.mlops\n", "is no TOML"),
        ("[project]\nname = 'x'\n", r"has no table \[tool.mlops\]"),
        ("[tool.mlops]\ndbt_projekt = 'x'\n", r"\[tool.mlops\]: unknown field 'dbt_projekt'; did you mean dbt_project\?"),
        ("[tool.mlops]\nstate = 3\n", "state is no text"),
        ("[tool]\nmlops = 3\n", "mlops is no table"),
        ("[tool.mlops]\n[tool.dg]\nproject = 'x'\n", "project is no table"),
    ],
)
def test_a_mistake_is_a_message_with_the_place(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        write_project(tmp_path, text)
    with pytest.raises(StackError, match=message) as error:
        Project.read(tmp_path)
    assert str(tmp_path) in error.value.problem
    assert error.value.remedy


def test_outside_a_project_the_command_says_what_to_do(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "mlops"
    done = subprocess.run(
        [command, "status"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "There is no project in" in done.stderr
    assert "MLOPS_PROJECT=" in done.stderr
    assert "Traceback" not in done.stderr
