"""A version learns from rows of before its window, and is judged on rows of the window: a real lake and a real MLflow registry."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from clinic_chain import Clinic, Registry
from registry_database import new_registry_url

from mlops_assets.clients.signatures import Signer
from mlops_assets.core.keys import MODEL, TRAINING_DATASET
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.training.reference_period import REFERENCE_WINDOW, scored_windows

DAY = date(2020, 3, 1)
VISITS_A_DAY = 50


def test_a_version_learns_from_before_its_window_and_is_judged_within_it(
    make_lake: Callable[[], Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The artifacts of a database without a server lie in the current folder.
    monkeypatch.chdir(tmp_path)
    registry = Registry(new_registry_url(tmp_path), "", Signer(tmp_path / "signing_key"))
    clinic = Clinic("binary_classification", make_lake(), registry, Settings(home=tmp_path / "home"))
    training = clinic.inputs.solution.training.model_copy(update={"window": "42d", "earlier_rows": 400})
    clinic = clinic.declaring(training=training)
    version = clinic.train(DAY.isoformat())
    counts = dict(
        zip(
            *clinic.query("SELECT split, count(*) FROM {name}.training_dataset GROUP BY 1 ORDER BY 1").to_pydict().values(),
            strict=True,
        )
    )
    in_window = 42 * VISITS_A_DAY
    assert (counts["train"], counts["holdout"]) == (in_window - 7 * VISITS_A_DAY, 7 * VISITS_A_DAY)
    assert 300 < counts["earlier"] < 500
    shown, model = (
        clinic.instance.get_latest_materialization_event(clinic.inputs.key(stage)).asset_materialization.metadata
        for stage in (TRAINING_DATASET, MODEL)
    )
    assert shown["rows_by_split"].value == counts
    # What serves has seen the hold-out too.
    assert model["fitted_rows"].value == sum(counts.values())
    assert clinic.query("SELECT count(*) AS n FROM {name}.evaluation").column("n").to_pylist() == [counts["holdout"]]
    with clinic.lake.connect(read_only=True) as connection:
        reference = scored_windows(connection, clinic.inputs, clinic.bundle(version), DAY)
    assert reference is not None
    # Whole weeks of the window: none of those of which some rows alone were drawn.
    weeks = reference.column(REFERENCE_WINDOW).value_counts().to_pylist()
    assert {week["counts"] for week in weeks} == {7 * VISITS_A_DAY}
