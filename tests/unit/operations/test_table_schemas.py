"""Raw tables as their files declare them: a file that cannot be read is a message and hides no other."""

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.operations import table_schemas


@pytest.fixture
def project(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Project:  # type: ignore[no-untyped-def]
    """A project in a folder, as the module finds it."""
    from parcels import parcels_project

    made = parcels_project(tmp_path)
    monkeypatch.setattr(table_schemas, "current_project", lambda: made)
    return made


def test_a_table_is_found_beside_a_file_that_cannot_be_read(project: Project) -> None:
    broken = project.definitions_directory / "broken"
    broken.mkdir()
    (broken / "defs.yaml").write_text("type: [\n")
    (project.definitions_directory / "latin").mkdir()
    (project.definitions_directory / "latin" / "defs.yaml").write_bytes(b"type: \xff\n")
    table, folder = table_schemas.raw_table("parcels")
    assert table.key == ["parcel_id"]
    assert folder.name == "parcels"
    with pytest.raises(StackError) as error:
        table_schemas.raw_table("orders")
    assert "broken/defs.yaml" in error.value.problem
    assert "latin/defs.yaml" in error.value.problem
    assert "mlops check" in error.value.remedy
