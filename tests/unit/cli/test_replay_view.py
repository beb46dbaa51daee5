"""How a replay looks: what happened in a step, and the comparison with means over the months that have a value."""

from dataclasses import replace
from datetime import date
from typing import get_args

import pytest
from rich.console import Console

from mlops_assets.cli.replay_view import _described, _show_comparison, _show_step
from mlops_assets.ml.retraining import Outcome
from mlops_assets.operations.replay import RUN_NAMES, BlockedDelivery, FollowingRun, ReplayStep
from mlops_assets.operations.replay_plan import Period

WINDOW = {
    "window_start": "2024-01-01",
    "predictions": 12345,
    "drifted_share": 0.25,
    "estimated": None,
    "realised": 0.7,
    "bad_windows": 2,
    "outcome": "retrain",
    "model_version": 3,
    "reason": "realised [roc_auc] is [/worse]",
}


def step(**fields: object) -> ReplayStep:
    return ReplayStep(Period(date(2024, 1, 1), date(2024, 1, 7)), windows=[WINDOW], champion=3, **fields)  # type: ignore[arg-type]


def test_a_step_shows_windows_decisions_and_trainings(terminal: Console) -> None:
    _show_step(terminal, step(followed_by=FollowingRun("retrain", "http://localhost/runs/1", 12.4, ("gate [x] failed",))))
    text = terminal.export_text()
    for words in (
        "12,345",
        "25%",
        "0.700",
        "realised [roc_auc] is [/worse]",
        "Training in 12 s, refused: gate [x] failed",
        "version 3 predicts",
    ):
        assert words in text


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_decision_has_a_colour_and_what_followed_a_name(terminal: Console, outcome: Outcome) -> None:
    run = FollowingRun(outcome, "http://localhost/runs/1", 3.0, ()) if outcome in RUN_NAMES else None
    _show_step(terminal, replace(step(followed_by=run), windows=[WINDOW | {"outcome": outcome}]))
    text = terminal.export_text()
    assert outcome in text
    assert (f"{RUN_NAMES.get(outcome, '').capitalize()} in 3 s, deployed" in text) == (outcome in RUN_NAMES)


def test_a_fault_that_nothing_stopped_is_told(terminal: Console) -> None:
    _show_step(terminal, step(stopped=BlockedDelivery("drop of raw.orders", ())))
    assert "nothing stopped it" in terminal.export_text()
    _show_step(terminal, step(stopped=BlockedDelivery("drop of raw.orders", ("row_count [raw]",))))
    assert "stopped by row_count [raw]. The champion stayed" in terminal.export_text()


def test_means_are_those_of_the_months_with_a_value(terminal: Console) -> None:
    months = [
        {"first": "2024-01-01", "rows": 10, "loop": 0.5, "frozen": None, "monthly": None},
        {"first": "2024-02-01", "rows": 20, "loop": 0.7, "frozen": 0.4, "monthly": None},
    ]
    _show_comparison(terminal, "roc_auc", months)
    mean = next(line for line in terminal.export_text().splitlines() if "mean" in line)
    assert [word for word in mean.replace("│", " ").split() if word != "mean"] == ["0.600", "0.400"]


def test_json_tells_the_same(terminal: Console) -> None:
    described = _described(step(seconds=1.26))
    assert (described["seconds"], described["stopped"], described["followed_by"], described["champion"]) == (1.3, None, None, 3)
    assert described["windows"] == [WINDOW]
