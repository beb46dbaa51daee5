"""A compiled model becomes files of a person: its SQL, contract and tag stay, and the YAML loses its declaration and nothing else."""

from pathlib import Path

import pytest
import yaml
from parcels import SOLUTION, SOURCE, VIEWS, declare, parcels_project

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.features.generated.ejection import eject
from mlops_assets.features.generated.project_files import generated_models, write_generated_models

_INLINE_SPINE = """  spine: {table: parcels, key: parcel_id, prediction_time: sent_at, # the moment
    expressions: {is_late: delivered_at - sent_at > INTERVAL 24 HOUR}, label: is_late, label_time: delivered_at}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = parcels_project(tmp_path)
    declare(found, "parcels", SOURCE + VIEWS)
    write_generated_models(found)
    return found


def files(folder: Path, name: str) -> dict[str, str]:
    return {path.suffix: path.read_text() for path in folder.rglob(f"{name}.*")}


@pytest.mark.parametrize("name", ["depot_history", "depot_parcels", "parcel_delay_spine"])
def test_the_model_is_the_same_in_its_new_place(name: str, project: Project) -> None:
    before = files(project.dbt_project / "generated", name)
    done = eject(name, project)
    after = files(project.dbt_project / "models", name)
    assert [path.parent.parent.name for path in done.files] == ["solutions" if name.endswith("spine") else "features"] * 2
    assert after[".sql"] == before[".sql"], "the code version of the asset"
    assert yaml.safe_load(after[".yml"]) == yaml.safe_load(before[".yml"])
    assert "eject" not in after[".yml"]
    assert files(project.dbt_project / "generated", name) == {}
    assert name not in {model.name for model in generated_models(project)}


def test_the_yaml_loses_the_view_and_nothing_else(project: Project) -> None:
    path = project.definitions_directory / "parcels" / "defs.yaml"
    path.write_text(path.read_text().replace("    depot_parcels:\n", "\n    # A comment.\n    depot_parcels:\n"))
    eject("depot_history", project)
    assert "depot_history" not in path.read_text()
    assert "# A comment.\n    depot_parcels:" in path.read_text()
    eject("depot_parcels", project)
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(SOURCE)


@pytest.mark.parametrize("inline", [False, True])
def test_the_solution_names_the_model_of_its_spine(inline: bool, project: Project) -> None:
    path = project.definitions_directory / "parcel_delay" / "defs.yaml"
    if inline:
        start, end = SOLUTION.index("  spine:"), SOLUTION.index("  features:")
        path.write_text(SOLUTION[:start] + _INLINE_SPINE + SOLUTION[end:])
    eject("parcel_delay_spine", project)
    expected = yaml.safe_load(SOLUTION)
    spine = expected["attributes"]["spine"]
    del spine["table"], spine["expressions"]
    assert yaml.safe_load(path.read_text())["attributes"] == {
        **expected["attributes"],
        "spine": {**spine, "model": "parcel_delay_spine"},
    }


def test_an_unknown_name_has_a_hint(project: Project) -> None:
    with pytest.raises(StackError, match="No model 'depot_histori' is compiled") as raised:
        eject("depot_histori", project)
    assert "did you mean depot_history" in raised.value.remedy


def test_files_in_the_way_stay(project: Project) -> None:
    path = project.dbt_project / "models" / "features" / "parcels" / "depot_history.yml"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(StackError, match=r"depot_history\.yml exists already"):
        eject("depot_history", project)
    assert path.read_text() == "mine"
    assert "depot_history" in {model.name for model in generated_models(project)}
