"""What the commands share: values as JSON, wrong settings as a message, and the line that a stage leaves."""

import json
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.cli.terminal import output_file, print_json, read_settings, run_progress
from mlops_assets.clients.dagster_client import RunState
from mlops_assets.core.errors import StackError


def test_json_is_whole_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": "[bold]x[/bold] :smile: " + "long " * 100, "day": date(2024, 1, 1), "path": Path("/a b"), "n": None, "ü": [1.5]}
    print_json(value)
    printed = capsys.readouterr().out
    assert '"ü"' in printed, "as a person reads it"
    read = json.loads(printed)
    assert read == {**value, "day": "2024-01-01", "path": "/a b"}


def test_moments_keep_their_zone(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2024, 1, 1, 12, tzinfo=UTC)
    print_json([moment])
    assert datetime.fromisoformat(json.loads(capsys.readouterr().out)[0]) == moment


def test_a_wrong_variable_is_a_message_with_its_name_and_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_DAGSTER_PORT", "three thousand")
    with pytest.raises(StackError, match="MLOPS_DAGSTER_PORT") as error:
        read_settings()
    assert ".env" in error.value.remedy


def test_progress_into_a_file_writes_nothing(tmp_path: Path) -> None:
    state = RunState("r", "STARTED", ("a__b", "c"), ("a__b",), {}, is_interrupted=False, is_followed=False, followed_by=None)
    with (tmp_path / "log").open("w") as file, run_progress("scoring", Console(file=file)) as report:
        report(state)
    assert (tmp_path / "log").read_text() == ""


def test_progress_on_a_terminal_names_what_runs() -> None:
    terminal = Console(width=160, record=True, force_terminal=True, file=StringIO())
    with run_progress("scoring", terminal) as report:
        report(
            RunState(
                "r", "STARTED", ("a__b", "c"), ("a__b",), {"c": 1.0}, is_interrupted=False, is_followed=False, followed_by=None
            )
        )
    assert "scoring: a/b" in terminal.export_text()


@pytest.mark.parametrize("command", ["diff --output", "dataset rebuild parcels 1 --output", "catalogue --output"])
def test_a_result_that_could_not_be_written_is_refused_before_the_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(app, [*command.split(), str(tmp_path / "file" / "below")])
    assert refused.exit_code == 2
    assert "cannot be made" in " ".join(refused.stderr.replace("│", " ").split())
    assert output_file(tmp_path / "new" / "review.md") == tmp_path / "new" / "review.md"
    with pytest.raises(typer.BadParameter, match="is a folder"):
        output_file(tmp_path / "new")
