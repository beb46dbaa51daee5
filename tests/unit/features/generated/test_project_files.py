"""The folder of generated models follows the YAML of a project."""

from pathlib import Path

import pytest
import yaml
from parcels import SOLUTION, SOURCE, VIEWS, declare, parcels_project

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.features.generated.project_files import spine_of, write_generated_models
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Solution

_SPINE = "dbt_project/generated/solutions/parcel_delay/parcel_delay_spine"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return parcels_project(tmp_path)


def test_files_are_written_once_and_again_when_the_yaml_changes(project: Project) -> None:
    assert write_generated_models(project) == ["dbt_project/generated/sources/parcels.yml", f"{_SPINE}.sql", f"{_SPINE}.yml"]
    assert write_generated_models(project) == []
    assert (project.root / f"{_SPINE}.sql").read_text().startswith("-- Compiled from shop/defs/parcel_delay/defs.yaml.\n")
    declare(project, "parcels", SOURCE.replace("Weight in kilograms.", "Its weight in kilograms."))
    assert write_generated_models(project) == ["dbt_project/generated/sources/parcels.yml", f"{_SPINE}.yml"]


def test_files_of_what_is_no_longer_declared_go(project: Project) -> None:
    write_generated_models(project)
    declare(project, "parcel_delay", "type: dagster.Component\nattributes: {}\n")
    assert write_generated_models(project) == [f"{_SPINE}.sql", f"{_SPINE}.yml"]
    assert not (project.dbt_project / "generated" / "solutions").exists()


def test_a_declaration_that_is_wrong_does_not_stop_the_others(project: Project) -> None:
    declare(project, "wrong", SOLUTION.replace("parcel_delay", "other").replace("key: parcel_id", "key: nothing"))
    assert f"{_SPINE}.sql" in write_generated_models(project)


@pytest.mark.parametrize(
    "text",
    [
        "attributes: [",
        "- type",
        SOURCE.replace("columns:", "colums:"),
        SOURCE.replace("RawTables", "RawTabels"),
        SOURCE.replace("type:", "tpye:"),
        SOURCE + VIEWS.replace("time: sent_at", "time: nothing"),
    ],
    ids=["no YAML", "a list", "no source", "no component", "no type", "no view"],
)
def test_what_was_compiled_of_a_file_stays_while_the_file_is_wrong(project: Project, text: str) -> None:
    """Else dbt would find no source, and one mistake would stop every model that reads its tables."""
    declare(project, "parcels", SOURCE + VIEWS)
    write_generated_models(project)
    files = sorted((project.dbt_project / "generated").rglob("*.*"))
    declare(project, "parcels", text)
    write_generated_models(project)
    assert sorted((project.dbt_project / "generated").rglob("*.*")) == files
    declare(project, "parcels", SOURCE)
    write_generated_models(project)
    assert len(files) > len(sorted((project.dbt_project / "generated").rglob("*.*"))) == 3


def test_a_table_that_a_person_described_is_left_to_them(project: Project) -> None:
    written = project.dbt_project / "models" / "__sources.yml"
    written.parent.mkdir()
    written.write_text("sources:\n  - name: raw\n    tables:\n      - name: parcels\n")
    assert not any("sources" in path for path in write_generated_models(project))


def test_a_spine_that_a_person_wrote_is_not_hidden(project: Project) -> None:
    written = project.dbt_project / "models" / "parcel_delay_spine.sql"
    written.parent.mkdir()
    written.write_text("select 1")
    solution = Solution.model_validate(yaml.safe_load(SOLUTION)["attributes"])
    with pytest.raises(ConfigurationError, match="`model: parcel_delay_spine`, or remove the file"):
        spine_of(solution, project)
    assert not any("solutions" in path for path in write_generated_models(project))


def test_a_dbt_project_that_does_not_read_the_folder_is_told_the_line(project: Project) -> None:
    path = project.dbt_project / "dbt_project.yml"
    path.write_text(path.read_text().replace("model-paths: [models, generated]", "model-paths: [models]"))
    with pytest.raises(StackError) as raised:
        write_generated_models(project)
    assert "model-paths: [models, generated]" in raised.value.remedy
