"""`mlops catalogue` without a stack: the page is written all the same, without values."""

from pathlib import Path

from typer.testing import CliRunner

from mlops_assets.cli.main import app


def test_without_a_lake_the_page_has_the_views_and_says_that_values_are_missing(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "a folder" / "of mine"
    result = CliRunner().invoke(app, ["catalogue", "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str((output / "index.html").resolve())
    assert "Without values" in result.stderr
    assert "origin_weather" in (output / "index.html").read_text()
