"""`mlops replay` and `mlops automation`: what cannot be is refused before anything is started."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlops_assets.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "2024-02-01", "--to", "2024-01-01"], "--to is before --from"),
        (["--from", "2024-02-30", "--to", "2024-03-01"], "2024-02-30"),
        (["--from", "2024-01-01", "--to", "2024-02-01", "--step", "hour"], "'hour' is not one of"),
        (["--from", "2024-01-01", "--to", "2024-02-01", "--inject", "explode:raw.orders:2024-01-02:2024-01-03"], "explode"),
        (["--from", "2024-01-01", "--to", "2024-02-01", "--inject", "drop"], "drop"),
        (["--from", "2024-01-01"], "--to"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_without_a_stack(arguments: list[str], message: str, home: Path) -> None:
    result = CliRunner().invoke(app, ["replay", "my_solution", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my_solution", "--only", "features"], "of a solution only its retraining is switched"),
        (["--only", "training"], "'training' is not one of"),
    ],
)
def test_a_part_that_cannot_be_switched_is_refused_without_a_stack(arguments: list[str], message: str, home: Path) -> None:
    result = CliRunner().invoke(app, ["automation", "on", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.stderr
    assert not home.exists()
