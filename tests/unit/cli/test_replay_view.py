"""How a replay looks: what happened in a step, and the comparison with means over the months that have a value."""

from datetime import date

from rich.console import Console

from mlops_assets.cli.replay_view import _described, _show_comparison, _show_step
from mlops_assets.operations.replay import BlockedDelivery, ReplayStep, ReplayTraining
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
    _show_step(terminal, step(training=ReplayTraining("http://localhost/runs/1", 12.4, ("gate [x] failed",))))
    text = terminal.export_text()
    for words in ("12,345", "25%", "0.700", "realised [roc_auc] is [/worse]", "refused: gate [x] failed", "version 3 predicts"):
        assert words in text


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
    assert (described["seconds"], described["stopped"], described["training"], described["champion"]) == (1.3, None, None, 3)
    assert described["windows"] == [WINDOW]
