from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.features.dbt_package import DBT_PACKAGE, link_dbt_package

PROJECT = "name: warehouse\ndispatch:\n  - {macro_namespace: dbt, search_order: [warehouse, mlops, dbt]}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dbt_project.yml").write_text(PROJECT)
    return tmp_path


def test_the_package_is_linked_once(project: Path) -> None:
    assert link_dbt_package(project)
    assert not link_dbt_package(project)
    assert [path.name for path in (project / "dbt_packages").iterdir()] == ["mlops"]
    assert (project / "dbt_packages" / "mlops" / "dbt_project.yml").read_text().startswith("# The dbt package `mlops`")


def test_a_link_to_another_installation_is_replaced(project: Path) -> None:
    (project / "dbt_packages").mkdir()
    (project / "dbt_packages" / "mlops").symlink_to("/nowhere/mlops_assets/dbt_package")
    assert link_dbt_package(project)
    assert (project / "dbt_packages" / "mlops").resolve() == DBT_PACKAGE


def test_a_folder_of_the_name_is_not_touched(project: Path) -> None:
    (project / "dbt_packages" / "mlops").mkdir(parents=True)
    with pytest.raises(StackError, match="is not the package of the platform"):
        link_dbt_package(project)


@pytest.mark.parametrize("dispatch", ["", "dispatch:\n  - {macro_namespace: dbt, search_order: [warehouse, dbt, mlops]}\n"])
def test_a_project_that_does_not_use_the_macros_is_told_how(project: Path, dispatch: str) -> None:
    """Without them dbt appends the rows of a repeated run."""
    (project / "dbt_project.yml").write_text(f"name: warehouse\n{dispatch}")
    with pytest.raises(StackError, match="do not go before those of dbt") as raised:
        link_dbt_package(project)
    assert "search_order: [warehouse, mlops, dbt]" in raised.value.remedy


@pytest.mark.parametrize("text", ["name: [", "- a list", "", "name: \x00"])
def test_a_broken_project_file_is_a_message_with_its_place(project: Path, text: str) -> None:
    (project / "dbt_project.yml").write_text(text)
    with pytest.raises(StackError, match=r"dbt_project\.yml is no ") as raised:
        link_dbt_package(project)
    assert raised.value.remedy
