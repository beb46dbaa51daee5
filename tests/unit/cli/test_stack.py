import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.cli.stack import _table


def test_status_without_a_stack_says_stopped_and_creates_nothing(home: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["solutions"] == {}
    assert {entry["state"] for entry in report["processes"]} == {"stopped"}
    assert {entry["pid"] for entry in report["processes"]} == {None}
    assert not home.exists()


def test_status_leaves_out_the_servers_that_run_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_NATS_URL", "nats://host:4222")
    report = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert "nats" not in {entry["name"] for entry in report["processes"]}


def test_down_without_a_stack_does_nothing(home: Path) -> None:
    result = CliRunner().invoke(app, ["down"])
    assert result.exit_code == 0, result.output
    assert "Nothing was running." in result.stdout
    assert not home.exists()


def test_values_of_tables_are_shown_as_they_are(terminal: Console) -> None:
    terminal.print(_table([{"name": "[/red] [blink]", "list": ["[bold]", 1], "none": None, "empty": []}]))
    text = terminal.export_text()
    for words in ("[/red] [blink]", "[bold]", "none"):
        assert words in text


def test_every_command_is_refused_on_the_state_of_another_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `--env` is for the process; the test gives its own back.
    monkeypatch.setitem(os.environ, "MLOPS_ENV", "local")
    home.mkdir()
    (home / "environment").write_text("prod\n")
    refused = CliRunner().invoke(app, ["status", "--json"])
    assert refused.exit_code == 1
    message = " ".join(refused.stderr.split())
    assert f"The state in {home} is of the environment prod, and this process is of local" in message
    assert "mlops --env prod" in message
    (home / "environment").write_text("local\n")
    assert json.loads(CliRunner().invoke(app, ["--env", "local", "status", "--json"]).stdout)["environment"] == "local"
    unknown = CliRunner().invoke(app, ["--env", "moon", "status"])
    assert (unknown.exit_code, "There is no moon.env in" in " ".join(unknown.stderr.split())) == (1, True)
