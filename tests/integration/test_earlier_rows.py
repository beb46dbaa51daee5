"""A version learns from rows of before its window, and is judged on rows of the window: a real lake and a real MLflow registry."""

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from clinic_chain import Clinic, Registry
from registry_database import new_registry_url

from mlops_assets.clients.signatures import Signer
from mlops_assets.core.keys import MODEL, TRAINING_DATASET
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.training.reference_period import REFERENCE_WINDOW, scored_windows

pytestmark = pytest.mark.long

DAY = date(2020, 3, 1)
VISITS_A_DAY = 50


@pytest.fixture
def clinic(make_lake: Callable[[], Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """A clinic whose window is the last six of nine weeks."""
    # The artifacts of a database without a server lie in the current folder.
    monkeypatch.chdir(tmp_path)
    registry = Registry(new_registry_url(tmp_path), "", Signer(tmp_path / "signing_key"))
    made = Clinic("binary_classification", make_lake(), registry, Settings(home=tmp_path / "home"))
    training = made.inputs.solution.training.model_copy(update={"window": "42d", "earlier_rows": 400})
    return made.declaring(training=training)


def page(clinic: Clinic, stage: str) -> Mapping[str, Any]:
    """The metadata of the newest materialization of a stage."""
    event = clinic.instance.get_latest_materialization_event(clinic.inputs.key(stage))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def rows_by_split(clinic: Clinic) -> dict[str, int]:
    counted = clinic.query("SELECT split, count(*) AS n FROM {name}.training_dataset GROUP BY 1").to_pylist()
    return {row["split"]: row["n"] for row in counted}


def test_a_version_learns_from_before_its_window_and_is_judged_within_it(clinic: Clinic) -> None:
    version = clinic.train(DAY.isoformat())
    counts = rows_by_split(clinic)
    in_window = 42 * VISITS_A_DAY
    assert (counts["train"], counts["holdout"]) == (in_window - 7 * VISITS_A_DAY, 7 * VISITS_A_DAY)
    assert 300 < counts["earlier"] < 500
    assert page(clinic, TRAINING_DATASET)["rows_by_split"] == counts
    # What serves has seen the hold-out too.
    assert page(clinic, MODEL)["fitted_rows"] == sum(counts.values())
    assert page(clinic, MODEL)["earlier_rows"].startswith(f"{counts['earlier']} are fitted on: with them the loss on the ")
    assert clinic.query("SELECT count(*) AS n FROM {name}.evaluation").column("n").to_pylist() == [counts["holdout"]]
    with clinic.lake.connect(read_only=True) as connection:
        reference = scored_windows(connection, clinic.inputs, clinic.bundle(version), DAY)
    assert reference is not None
    # Whole weeks of the window: none of those of which some rows alone were drawn.
    weeks = reference.column(REFERENCE_WINDOW).value_counts().to_pylist()
    assert {week["counts"] for week in weeks} == {7 * VISITS_A_DAY}


def test_rows_of_another_relation_are_left_out(clinic: Clinic) -> None:
    day, table = date(2020, 3, 30), f"{clinic.name}.visits"
    turned = (
        f"SELECT * REPLACE (CASE WHEN day < DATE '2020-03-02' THEN NOT outcome ELSE outcome END AS outcome) FROM lake.{table}"
    )
    with clinic.lake.connect(read_only=False) as connection:
        clinic.lake.replace(connection, table=table, query=turned, partition_range=None, author="test")
    section = {"window": "28d", "holdout": "14d", "earlier_rows": 5000}
    clinic = clinic.declaring(training=clinic.inputs.solution.training.model_copy(update=section))
    clinic.train(day.isoformat())
    counts = rows_by_split(clinic)
    assert counts == {"earlier": 61 * VISITS_A_DAY, "train": 14 * VISITS_A_DAY, "holdout": 14 * VISITS_A_DAY}
    assert page(clinic, MODEL)["fitted_rows"] == counts["train"] + counts["holdout"]
    assert page(clinic, MODEL)["earlier_rows"].startswith("none of 3,050 is fitted on: with them the loss on the ")
