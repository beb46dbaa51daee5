from datetime import date
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.operations import demo
from mlops_assets.operations.demo import DemoPlan


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.mlops]\n")
    project = Project.read(tmp_path)
    project.definitions_directory.mkdir(parents=True)
    monkeypatch.setattr(demo, "current_project", lambda: project)
    return project.demo_file


def test_what_it_shows_is_declared_and_the_replay_is_left_out_where_it_is(file: Path) -> None:
    file.write_text("solution: parcels\nstart: 2024-01-01\nmonths: 4\n")
    assert DemoPlan.read(None) == DemoPlan("parcels", date(2024, 1, 1), 4, None)
    assert (DemoPlan.read(2).training_date, DemoPlan.read(2).last) == (date(2024, 2, 1), date(2024, 2, 29))
    file.write_text("solution: parcels\nstart: 2024-01-01\nmonths: 4\nreplay_to: 2024-06-30\n")
    assert (DemoPlan.read(None).replay_to, DemoPlan.read(3).replay_to) == (date(2024, 6, 30), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "There is no .*demo.yaml, which says what the demo shows"),
        ("", "demo.yaml: the file: Input should be"),
        ("solution: [", "demo.yaml is no YAML"),
        ("solution: parcels\nstart: soon\nmonths: 4\n", "demo.yaml: start: Input should be a valid date"),
        ("solution: parcels\nstart: 2024-01-01\nmonth: 4\n", "months: Field required; month: Extra inputs"),
        ("solution: parcels\nstart: 2024-01-01\nmonths: 1\n", "a month to train on and a month to predict"),
    ],
)
def test_a_mistake_is_a_message(file: Path, text: str | None, problem: str) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(StackError, match=problem):
        DemoPlan.read(None)
