"""`mlops stream`: a line for each message, and what is refused before anything is started."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.cli.stream import _prediction, _reject


def test_a_prediction_is_a_line_with_what_identifies_it() -> None:
    record = {
        "prediction_time": "2024-01-01T12:00:00Z",
        "key": "UA 15",
        "outputs": {"score": 0.25, "predicted_label": "[late]", "probabilities": [0.25, 0.75]},
        "model_version": 3,
        "prediction_id": "x:stream:7",
    }
    assert _prediction(record) == "2024-01-01T12:00:00Z  UA 15  score 0.25, predicted_label [late]  version 3  x:stream:7"


def test_a_reject_is_a_line_with_its_reason() -> None:
    reject = {"stored_at": "2024-01-01T12:00:00Z", "subject": "requests.x", "sequence": 7, "reason": "id: a key is missing"}
    assert _reject(reject) == "2024-01-01T12:00:00Z  requests.x 7  id: a key is missing"


@pytest.mark.parametrize(
    "arguments",
    [["send", "x", "--day", "yesterday"], ["send", "x", "--day", "2024-01-01", "--rate", "0"], ["tail", "x", "--minutes", "-1"]],
)
def test_a_mistake_is_answered_without_a_stack(arguments: list[str], home: Path) -> None:
    result = CliRunner().invoke(app, ["stream", *arguments])
    assert result.exit_code == 2
    assert not home.exists()
