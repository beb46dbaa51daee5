"""Where the files of a new solution go, and that nothing that exists is written over."""

from pathlib import Path

import pytest
from new_tables import propose_text
from parcels import parcels_project

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.writing import plan_files, write_files

TEXT = "x,label\n" + "".join(f"{number % 7},{'ab'[number % 2]}\n" for number in range(100))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "shop"
    root.mkdir()
    return parcels_project(root)


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    (tmp_path / "things.csv").write_text(TEXT)
    return Origin.of_file(str(tmp_path / "things.csv"))


def test_the_data_is_copied_beside_the_source_that_names_it(project: Project, origin: Origin, tmp_path: Path) -> None:
    files = plan_files(project, "things", origin, references=False)
    written = write_files(files, origin, propose_text(tmp_path, TEXT, label="label"))
    assert [str(path.relative_to(project.definitions_directory)) for path in written] == [
        "things_source/things.csv",
        "things_source/defs.yaml",
        "things/defs.yaml",
    ]
    assert written[0].read_text() == TEXT
    assert "files: [things.csv]" in written[1].read_text()
    with pytest.raises(StackError, match="Nothing is overwritten"):
        plan_files(project, "things", origin, references=False)
    assert plan_files(project, "things_2", origin, references=True).label == str(origin.path)


def test_a_file_that_lies_in_the_folder_of_the_source_stays_there(project: Project, tmp_path: Path) -> None:
    file = project.definitions_directory / "things_source" / "data" / "things.csv"
    file.parent.mkdir(parents=True)
    file.write_text(TEXT)
    files = plan_files(project, "things", Origin.of_file(str(file)), references=False)
    assert (files.copy, files.label) == (None, "data/things.csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parcel_delay", "a solution parcel_delay"),
        ("parcels", "a raw table parcels"),
        ("raw", "a schema of the platform"),
        ("My Things", "mlops new my_things"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused(project: Project, origin: Origin, name: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        plan_files(project, name, origin, references=False)


def test_a_file_that_is_not_there_or_says_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="There is no file"):
        Origin.of_file(str(tmp_path / "none.csv"))
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(StackError, match="says no format"):
        Origin.of_file(str(tmp_path / "data.xlsx"))
    assert Origin.of_file("https://example.org/a/data.tsv.gz?x=1").format == "csv"
