import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project
from mlops_assets.local.environment import scripts_directory
from mlops_assets.operations.project_files import OVERRIDES, create_project

PROGRAMS = scripts_directory()


def test_the_files_are_a_project(tmp_path: Path) -> None:
    files = create_project(tmp_path / "my-company")
    project = Project.read(tmp_path / "my-company")
    assert (project.code_location, project.entry_point) == ("my_company", "my_company.definitions")
    assert (project.definitions_directory / "__init__.py").is_file()
    assert (project.dbt_project / "dbt_project.yml").is_file()
    assert {path.stem for path in project.environments_directory.glob("*.env")} == {"local", "staging", "prod"}
    assert all((project.root / path).is_file() for path in files)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "bakery"
    (folder / ".git").mkdir(parents=True)
    create_project(folder)
    (folder / "README.md").write_text("Ours.")
    with pytest.raises(StackError, match="bakery exists and is not empty"):
        create_project(folder)
    assert (folder / "README.md").read_text() == "Ours."
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="file exists and is not empty"):
        create_project(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("My Company", "mlops init my_company"),
        ("3-shops", "mlops init shops"),
        ("-", "mlops init my_company"),
        ("dagster", "mlops init dagster_models"),
        ("mlops", "mlops init mlops_models"),
        ("class", "mlops init class_models"),
        ("json", "mlops init json_models"),
    ],
)
def test_a_bad_name_is_refused_with_a_good_one(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(StackError, match="cannot be the name of a project") as error:
        create_project(tmp_path / name)
    assert remedy in error.value.remedy
    assert not (tmp_path / name).exists()


def test_uv_installs_what_this_package_is_tested_with() -> None:
    own = tomllib.loads((current_project().root / "pyproject.toml").read_text())
    assert tuple(own["tool"]["uv"]["override-dependencies"]) == OVERRIDES


@pytest.fixture(params=["of this package", "of a new project"])
def workflows(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with workflows in `.github/workflows`."""
    if request.param == "of this package":
        return current_project().root
    create_project(tmp_path / "bakery")
    return tmp_path / "bakery"


def test_workflows_are_sound(workflows: Path) -> None:
    """They fit the schema of GitHub; actions are pinned by hash, rights are the least, and no input of a stranger gets into a shell."""
    files = sorted(map(str, (workflows / ".github" / "workflows").glob("*.yml")))
    assert len(files) == 3
    # The most severe of its three sets of rules, but for one: machines of an environment are those of a team.
    zizmor = [PROGRAMS / "zizmor", "--offline", "--no-config", "--persona=auditor", "--format=json", *files]
    found = json.loads(subprocess.run(zizmor, capture_output=True, text=True, check=False).stdout)
    assert {fault["ident"] for fault in found} <= {"self-hosted-runner"}
    _fits_schema("vendor.github-workflows", *files)


def test_the_pipeline_of_gitlab_fits_its_schema(tmp_path: Path) -> None:
    create_project(tmp_path / "bakery")
    _fits_schema("vendor.gitlab-ci", "--data-transform=gitlab-ci", str(tmp_path / "bakery" / ".gitlab-ci.yml"))


def test_the_script_of_a_deployment_may_be_called_and_parses(tmp_path: Path) -> None:
    create_project(tmp_path / "bakery")
    script = tmp_path / "bakery" / "deployments" / "deploy"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def _fits_schema(schema: str, *arguments: str) -> None:
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", schema, *arguments]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
