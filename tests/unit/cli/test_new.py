"""`mlops new` as a command: without a terminal it names the options, and its questions are answered as they are asked."""

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from parcels import parcels_project
from typer.testing import CliRunner
from waiting import wait_for

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


def test_questions_are_answered_on_a_terminal(command: list[str], project: Project) -> None:
    with _on_terminal(command, project) as terminal:
        assert "Choices: tails, heads" in terminal.read_until("> ")
        # What cannot be is told, and asked again.
        terminal.write("edge\n")
        assert "side has no value 'edge'" in terminal.read_until("> ")
        terminal.write("tails\n")
        assert "coins/defs.yaml" in terminal.read_until("--example")
        assert terminal.process.wait() == 0
    assert "side_is_tails" in (project.definitions_directory / "coins" / "defs.yaml").read_text()


def test_a_question_that_is_left_writes_nothing(command: list[str], project: Project) -> None:
    with _on_terminal(command, project) as terminal:
        terminal.read_until("> ")
        terminal.interrupt_until("Aborted")
        assert terminal.process.wait() == 1
    assert not list(project.definitions_directory.glob("coins*"))


@dataclass
class _Terminal:
    """A process on a terminal of its own, and what it has written there that was not read yet."""

    process: subprocess.Popen[bytes]
    descriptor: int

    def read_until(self, end: str) -> str:
        """Read until the process has written `end`. Fails where it ends without."""
        text = ""
        while end not in text:
            try:
                text += os.read(self.descriptor, 1 << 16).decode()
            except OSError:
                pytest.fail(f"The process ended after: {text}")
        return text

    def write(self, text: str) -> None:
        """Type `text`."""
        os.write(self.descriptor, text.encode())

    def interrupt_until(self, end: str) -> None:
        """Press Ctrl-C until the process has written `end`: between a question and the wait for its answer Python may miss one.

        And no more often: another one would interrupt its own end.
        """
        text = ""

        def has_written() -> bool:
            nonlocal text
            self.write("\x03")
            while end not in text and select.select([self.descriptor], [], [], 2)[0]:
                text += os.read(self.descriptor, 1 << 16).decode()
            return end in text

        wait_for(has_written)


@contextmanager
def _on_terminal(command: list[str], project: Project) -> Iterator[_Terminal]:
    """The command as a person runs it in the project."""
    ours, theirs = pty.openpty()
    own = {"MLOPS_PROJECT": str(project.root), "COLUMNS": "200", "TERM": "xterm"}
    # A terminal sends Ctrl-C to the session that it controls.
    program = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from mlops_assets.cli.main import app; app()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=project.root,
        env={**os.environ, **own},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield _Terminal(process, ours)
        finally:
            # Hangs up, so that a process that still waits for an answer ends.
            os.close(ours)


def test_rows_come_from_a_file_or_a_query(command: list[str]) -> None:
    result = CliRunner().invoke(app, ["new", "coins", "--label", "side"])
    assert (result.exit_code, "Give one of --from FILE, --query SQL and --table NAME." in result.stderr) == (1, True)
