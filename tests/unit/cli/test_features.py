import json

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mlops_assets.cli.main import app

COMMANDS = sorted(get_command(app).commands["features"].commands)  # type: ignore[attr-defined]


pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, ["features", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: mlops features {command}" in result.stdout


def test_list_names_every_view_with_its_users() -> None:
    result = CliRunner().invoke(app, ["features", "list", "--json"])
    assert result.exit_code == 0, result.output
    views = {view["view"]: view for view in json.loads(result.stdout)}
    assert "flight_delay" in views["origin_weather"]["used_by"]
    assert views["origin_weather"]["freshness_days"] == 1
    assert views["carrier_history"]["used_by"] == []
    assert views["person"]["used_by"] == ["employment"]
    assert all(view["online"] and view["owner"] and view["description"] for view in views.values())


def test_search_puts_names_before_descriptions() -> None:
    found = json.loads(CliRunner().invoke(app, ["features", "search", "weather", "--json"]).stdout)
    assert (found[0]["view"], found[0]["feature"]) == ("origin_weather", None)
    assert [entry["score"] for entry in found] == sorted((entry["score"] for entry in found), reverse=True)
    both = json.loads(CliRunner().invoke(app, ["features", "search", "carrier overdue", "--json"]).stdout)
    assert {entry["view"] for entry in both} == {"carrier_origin_departures"}
    assert "Nothing is called" in CliRunner().invoke(app, ["features", "search", "zzz"]).stdout


def test_impact_of_a_whole_table_needs_no_dbt() -> None:
    answer = json.loads(CliRunner().invoke(app, ["features", "impact", "raw.planes", "--json"]).stdout)
    assert answer["level"] == "model"
    assert [view["view"] for view in answer["views"]] == ["aircraft"]
    assert answer["solutions"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "carier_history"], "there is no feature view 'carier_history'"),
        (["show", "carrier_history", "--version", "7"], "has no version 7"),
        (["impact", "raw.planez"], "did you mean raw.planes"),
        (["impact", "raw.planes.seat"], "did you mean seats"),
    ],
)
def test_a_wrong_name_is_a_message_with_the_nearest(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["features", *arguments])
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
