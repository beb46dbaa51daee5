"""How a run looks: where the time went, and names of features as they are."""

from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from mlops_assets.cli.run_view import _metrics_table, _time_table, _windows_table
from mlops_assets.operations.run_summary import RunSummary
from mlops_assets.operations.stage_runs import StageRun, StageRunResult

SUMMARY = RunSummary(
    version=1,
    rows={"raw.flights": 27004},
    metrics={
        "hold-out": {"roc_auc": 0.75, "baseline_roc_auc": 0.5, "rows": 100.0},
        "realised": {"roc_auc": 0.7},
    },
    drift=[
        {
            "window": "2013-02-01",
            "metric": "roc_auc",
            "estimated": 0.74,
            "realised": 0.7,
            "reference": 0.75,
            "drifted": 2,
            "features": 10,
            "most": ["distance [km]", "[/late]"],
            "complete": False,
            "matured_share": 0.4,
            "alert": True,
        }
    ],
    reports=[],
    urls={},
)


def lines(terminal: Console, table: RenderableType) -> list[str]:
    terminal.print(table)
    return terminal.export_text().splitlines()


def test_windows_name_the_features_that_drifted_most(terminal: Console) -> None:
    [row] = [line for line in lines(terminal, _windows_table(SUMMARY)) if "2013-02-01" in line]
    for words in ("0.7400", "0.7000 (partial)", "2 of 10", "distance [km], [/late]"):
        assert words in row


@pytest.mark.parametrize(("share", "realised"), [(0.02, "0.7000 (2% have a label)"), (0.97, "0.7000 ")])
def test_a_metric_of_few_labels_says_so(terminal: Console, share: float, realised: str) -> None:
    window = {**SUMMARY.drift[0], "complete": True, "matured_share": share}
    [row] = [line for line in lines(terminal, _windows_table(replace(SUMMARY, drift=[window]))) if "2013-02-01" in line]
    assert realised in row
    assert "partial" not in row


def test_a_metric_stands_beside_its_baseline_and_what_has_none_is_left_out(terminal: Console) -> None:
    text = "\n".join(lines(terminal, _metrics_table(SUMMARY)))
    assert [word in text for word in ("0.7500", "0.5000", "0.7000", "rows")] == [True, True, True, False]


def test_the_longest_steps_come_first_and_the_rest_is_the_launch(terminal: Console) -> None:
    stage = StageRun("training", ("x/model",), "2013-01-01", "2013-01-01")
    steps = {"x__short": 0.01, "x__evaluation": 2.0, "x__model": 5.0}
    results = [StageRunResult(stage, seconds=10.01, steps=steps, run_url="u"), StageRunResult(StageRun("old", (), "a", "b"))]
    text = lines(terminal, _time_table(results, 12.0))
    [training] = [line for line in text if "training" in line]
    assert "model 5.0, evaluation 2.0, launch 3.0" in training
    assert "short" not in training
    assert any("already there" in line for line in text)
