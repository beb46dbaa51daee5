"""What of the command line is recorded: all commands but those that only read, with who typed them and how it ended."""

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mlops_assets.cli.audit import READS
from mlops_assets.cli.main import app


def commands(group: Any, *path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        yield from commands(command, *path, name) if hasattr(command, "commands") else [" ".join((*path, name))]


def test_every_command_that_is_not_recorded_is_one() -> None:
    assert set(commands(typer.main.get_command(app))) >= READS
    changing = {"access add", "automation off", "backup", "promote", "restore", "rollback", "score", "train", "up", "open"}
    assert not changing & READS


def test_a_command_is_recorded_with_who_and_how_it_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    (home / "dagster").mkdir(parents=True)
    runner = CliRunner()
    added = runner.invoke(app, ["access", "add", "shop", "--solution", "flights", "--json"])
    assert runner.invoke(app, ["access", "remove", "nobody"]).exit_code == 1
    assert runner.invoke(app, ["access", "list"]).exit_code == 0
    assert runner.invoke(app, ["access", "rotate", "--help"]).exit_code == 0
    first, second = json.loads(runner.invoke(app, ["audit", "--json"]).stdout)
    assert (first["action"], first["details"]) == ("mlops access add", ["shop", "--solution", "flights", "--json"])
    assert (first["actor"], first["door"], first["outcome"]) == (pwd.getpwuid(os.getuid()).pw_name, "command line", "done")
    assert (second["action"], second["outcome"]) == ("mlops access remove", "StackError: There is no caller 'nobody'.")
    assert json.loads(added.stdout)["token"] not in (home / "audit.jsonl").read_text()


def test_nothing_is_recorded_where_nothing_is_installed(home: Path) -> None:
    assert CliRunner().invoke(app, ["access", "remove", "nobody"]).exit_code == 1
    assert not (home / "audit.jsonl").exists()
