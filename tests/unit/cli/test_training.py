"""`mlops train`: what came out, with gates that refused and problems as they were written; and a wrong override."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.cli.training import show_outcome
from mlops_assets.operations.training import TrainingOutcome

REFUSED = TrainingOutcome(
    solution="x",
    training_date="2024-01-01",
    run_url="http://localhost/runs/1",
    succeeded=False,
    version=3,
    version_url="http://localhost/models/3",
    estimator="sklearn.linear_model.Ridge",
    recalibration=None,
    skipped=None,
    metrics={"roc_auc": 0.71234},
    gates="failed",
    waits=False,
    rejected_because="roc_auc [0.712] is below [0.75]",
    problems=[],
)
FAILED = replace(REFUSED, gates=None, rejected_because=None, problems=["the step [red]model[/red] failed"])


def test_a_refused_candidate_is_shown_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(REFUSED)
    shown = capsys.readouterr()
    refused = f"The candidate was refused. {REFUSED.rejected_because}"
    for words in ("Ridge for 2024-01-01", "0.7123", "Version 3: failed", refused, "models/3", "runs/1"):
        assert words in shown.out
    assert shown.err == ""


def test_a_failed_run_is_shown_with_its_problems(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(FAILED)
    shown = capsys.readouterr()
    assert "the step [red]model[/red] failed" in shown.err
    assert "refused" not in shown.out


def test_what_was_not_fitted_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(
        replace(REFUSED, succeeded=True, skipped="The data is that of version 3.", gates=None, rejected_because=None, problems=[])
    )
    shown = capsys.readouterr()
    assert "The data is that of version 3." in shown.out
    assert "Version 3: not evaluated" in shown.out
    assert shown.err == ""


def test_a_recalibration_says_what_it_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(
        replace(REFUSED, estimator=None, recalibration="version 2 recalibrated (sigmoid) on 900 rows known at 2024-01-01")
    )
    assert "version 2 recalibrated (sigmoid) on 900 rows known at 2024-01-01" in capsys.readouterr().out


def test_a_run_without_a_version_shows_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(replace(REFUSED, version=None, version_url=None, metrics={}, rejected_because=None))
    assert capsys.readouterr().out.strip() == "http://localhost/runs/1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flight_delay", "--set", "training.seed"], "'training.seed' is no override."),
        (["flight_delay", "--set", "training.sed=3"], "sed"),
        (["flight_delay", "--set", "training.window=[1"], "The value of training.window is no YAML"),
        (["flight_delay", "--recalibrate", "--set", "training.seed=3"], "--recalibrate fits no model"),
        (["flight_dela"], "There is no solution 'flight_dela'."),
    ],
)
def test_a_mistake_is_answered_without_a_stack(arguments: list[str], message: str, home: Path) -> None:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not home.exists()
