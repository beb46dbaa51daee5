from typing import Any

from mlops_assets.ml.performance_words import describe_performance


def row(metric: str, realised: float, reference: float, *, alert: bool, complete: bool = True) -> dict[str, Any]:
    return {
        "metric": metric,
        "estimated": 0.5,
        "realised": realised,
        "reference": reference,
        "threshold": 0.1,
        "complete": complete,
        "alert": alert,
    }


def test_a_model_that_is_no_longer_calibrated_and_ranks_as_ever_is_told_as_such() -> None:
    rows = [
        row("log_loss", 0.628, 0.324, alert=True),
        row("brier_score", 0.21, 0.09, alert=True),
        row("expected_calibration_error", 0.101, 0.0204, alert=True),
        row("average_precision", 0.6, 0.2, alert=False),
        row("roc_auc", 0.698, 0.663, alert=False),
    ]
    assert describe_performance(rows, "roc_auc") == (
        "calibration worse (realised expected_calibration_error 0.101, hold-out 0.0204, limit 0.1), loss worse (realised log_loss 0.628, "
        "hold-out 0.324, limit 0.1); ranking as usual (realised roc_auc 0.698, hold-out 0.663)"
    )


def test_without_an_alert_every_aspect_is_as_usual_and_without_a_value_there_is_nothing_to_tell() -> None:
    quiet = [row("roc_auc", 0.7, 0.71, alert=False, complete=False)]
    assert describe_performance(quiet, "roc_auc") == "ranking as usual (estimated roc_auc 0.5, hold-out 0.71)"
    assert describe_performance([{**quiet[0], "estimated": None, "realised": None}], "roc_auc") == ""


def test_a_limit_that_no_value_passes_is_not_called_usual() -> None:
    blind = {**row("average_precision", 0.16, 0.194, alert=False), "threshold": -0.005}
    assert describe_performance([blind], "average_precision") == (
        "ranking too uncertain to tell (realised average_precision 0.16, hold-out 0.194)"
    )
    told = describe_performance([{**row("brier_score", 0.2, 0.1, alert=False), "threshold": 1.2}], "brier_score")
    assert told.endswith("too uncertain to tell (realised brier_score 0.2, hold-out 0.1)")
    assert "as usual" in describe_performance([{**blind, "threshold": None}], "average_precision")
