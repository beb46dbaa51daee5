"""How a chain and an explanation look: whatever names, reasons and values hold, they are shown as they are."""

from dataclasses import replace

from rich.console import Console
from rich.tree import Tree

from mlops_assets.cli.models import _explanation_table, _grow, _history_table
from mlops_assets.ml.contributions import Contribution, Explanation
from mlops_assets.operations.deployments import Deployment


def shown(terminal: Console, content: object) -> str:
    terminal.print(content)
    return terminal.export_text()


def test_a_reason_is_shown_with_its_brackets(terminal: Console, deployment: Deployment) -> None:
    text = shown(terminal, _history_table([deployment]))
    assert "[urgent] complaints [/b]" in text
    assert "an[na]" in text
    assert "live" in text


def test_a_recalibrated_version_is_told_from_a_fitted_one(terminal: Console, deployment: Deployment) -> None:
    words = "version 2 recalibrated (sigmoid) on 900 rows"
    text = shown(terminal, _history_table([replace(deployment, recalibration=words)]))
    assert " ".join(words.split()[:3]) in text


def test_a_chain_shows_every_link(terminal: Console) -> None:
    tree = Tree("x")
    content = {
        "model_version": {"version": 3, "tags": {"[red]": "[bold]x"}},
        "raw_partitions": [
            {"table": "raw.a", "training": ["2024-01-01 to 2024-01-31"]},
            {"table": "raw.b", "training": "all rows"},
        ],
        "deployment": None,
        "views": [],
    }
    _grow(tree, content)
    text = shown(terminal, tree)
    for words in (
        "model version",
        "version 3",
        "[bold]x",
        "table raw.a",
        "2024-01-01 to 2024-01-31",
        "all rows",
        "deployment None",
    ):
        assert words in text


def test_bars_are_as_long_as_contributions_and_values_are_shown_as_they_are(terminal: Console) -> None:
    contributions = (
        Contribution("distance [km]", 1234.5678, 0.4, 0.01),
        Contribution("[blink]", "[/red]", -0.2, 0.01),
        Contribution("gone", None, 0.0, 0.0),
    )
    lines = shown(terminal, _explanation_table(Explanation(0.7, 0.5, contributions))).splitlines()
    by_name = {name: next(line for line in lines if name in line) for name in ("distance [km]", "[blink]", "gone")}
    assert [line.count("█") for line in by_name.values()] == [20, 10, 0]
    assert "1235" in by_name["distance [km]"]
    assert "+0.4000" in by_name["distance [km]"]
    assert "[/red]" in by_name["[blink]"]
    assert "missing" in by_name["gone"]


def test_an_explanation_without_effects_has_no_bars(terminal: Console) -> None:
    explanation = Explanation(0.5, 0.5, (Contribution("a", 1, 0.0, 0.0),))
    assert "█" not in shown(terminal, _explanation_table(explanation))
