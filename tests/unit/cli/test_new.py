"""`mlops new` as a command: without a terminal it names the options, and its questions are answered as they are asked."""

import json
from pathlib import Path

import pytest
from parcels import parcels_project
from typer.testing import CliRunner

from mlops_assets.cli import new
from mlops_assets.cli.main import app
from mlops_assets.core import project as projects
from mlops_assets.core.project import Project

ROWS = [{"side": ("heads", "tails", "tails")[number % 3], "x": number % 5} for number in range(90)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "shop"
    root.mkdir()
    made = parcels_project(root)
    monkeypatch.setattr(projects, "current_project", lambda: made)
    return made


@pytest.fixture
def command(tmp_path: Path, project: Project) -> list[str]:
    (tmp_path / "coins.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return ["new", "coins", "--from", str(tmp_path / "coins.jsonl"), "--label", "side"]


def test_without_a_terminal_the_options_are_named_and_nothing_is_written(command: list[str], project: Project) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "--positive heads" in result.stderr
    assert "--yes" in result.stderr
    assert not (project.definitions_directory / "coins").exists()


def test_yes_takes_the_best_guess(command: list[str], project: Project) -> None:
    result = CliRunner().invoke(app, [*command, "--yes", "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [Path(path).exists() for path in answer["files"]] == [True, True, True]
    assert answer["roles"]["x"]["name"] == "feature"
    assert "side_is_heads" in (project.definitions_directory / "coins" / "defs.yaml").read_text()


def test_a_dry_run_shows_the_files_and_writes_none(command: list[str], project: Project) -> None:
    result = CliRunner().invoke(app, [*command, "--positive", "tails", "--dry-run"])
    assert result.exit_code == 0, result.stderr
    assert "side = 'tails'" in result.stdout
    assert not (project.definitions_directory / "coins").exists()


def test_questions_are_answered_on_a_terminal(command: list[str], project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new, "_is_terminal", lambda: True)
    result = CliRunner().invoke(app, command, input="tails\n")
    assert result.exit_code == 0, result.stderr
    assert "Which value of side" in result.stdout
    assert "side_is_tails" in (project.definitions_directory / "coins" / "defs.yaml").read_text()


def test_rows_come_from_a_file_or_a_query(command: list[str]) -> None:
    result = CliRunner().invoke(app, ["new", "coins", "--label", "side"])
    assert (result.exit_code, "Give one of --from FILE, --query SQL and --table NAME." in result.stderr) == (1, True)
