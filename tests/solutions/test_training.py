"""`mlops train` with a search, on the real stack: trials and provenance in MLflow, the candidate's alias, and no work twice."""

import json
from typing import Any

import dagster as dg
import inprocess
import pytest
from bundles import load
from running_stack import Demo, Platform

from mlops_assets.lake.datasets import recorded_datasets
from mlops_assets.training.training_runs import logged_trials

pytestmark = pytest.mark.long

SOLUTION = "flight_delay"
# Within the two months that the demo loaded, and not the date that it trained for.
TRAINING_DATE = "2013-02-14"
OVERRIDES: dict[str, Any] = {
    "training.search.trials": 2,
    "training.folds": 2,
    "training.estimator.parameters.max_iter": 20,
    # scikit-learn finds the bins of weighted rows one by one, each by all rows.
    "training.estimator.parameters.max_bins": 31,
    "training.search.candidates.0.parameters.max_bins": 31,
    "training.search.candidates.0.space.max_iter": {"choices": [15, 20]},
    "training.class_weight": "balanced",
    "training.calibration": "sigmoid",
    "training.decision_threshold": {"maximize": "f1"},
}


@pytest.fixture(scope="module")
def trained(platform: Platform, demo: Demo) -> dict[str, Any]:
    """What `mlops train --json` says."""
    options = [text for name, value in OVERRIDES.items() for text in ("--set", f"{name}={json.dumps(value)}")]
    answer = platform.mlops("train", SOLUTION, "--date", TRAINING_DATE, "--no-deploy", "--json", *options)
    outcome = dict(json.loads(answer.stdout))
    assert "Trial 2 of 2: " in answer.stderr
    assert answer.returncode == (0 if outcome["succeeded"] else 1)
    return outcome


def test_the_command_says_what_came_out(trained: dict[str, Any], platform: Platform, demo: Demo) -> None:
    assert trained["training_date"] == TRAINING_DATE
    assert trained["version"] > demo.summary["version"]
    assert 0.5 < trained["metrics"]["roc_auc"] < 1
    assert trained["gates"] == ("accepted" if trained["succeeded"] else "rejected")
    assert trained["skipped"] is None
    assert trained["problems"] == []
    assert trained["succeeded"] == (trained["rejected_because"] is None)
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version != trained["version"]


def test_every_trial_is_a_run_below_the_version_and_the_dataset_is_its_input(trained: dict[str, Any], platform: Platform) -> None:
    version = platform.registry.get(SOLUTION, trained["version"])
    assert logged_trials(platform.registry, version.run_id) == {0, 1}
    run = platform.registry.client.get_run(version.run_id)
    assert run.data.metrics["search_trials"] == 2
    assert run.data.metrics["search_best_roc_auc"] >= run.data.metrics["search_default_roc_auc"]
    assert run.data.params["calibration"] == "sigmoid"
    [read] = run.inputs.dataset_inputs
    assert read.dataset.name == f"{SOLUTION}.training_dataset"
    assert read.dataset.digest == version.tags["dataset_fingerprint"]
    assert "plots/search.png" in {each.path for each in platform.registry.client.list_artifacts(version.run_id, "plots")}


def test_the_version_tells_what_it_was_made_from(trained: dict[str, Any], platform: Platform) -> None:
    version = platform.registry.get(SOLUTION, trained["version"])
    tags = version.tags
    with platform.lake.connect(read_only=True) as connection:
        [dataset] = [
            each for each in recorded_datasets(connection, f"{SOLUTION}.training_dataset") if each.training_date == TRAINING_DATE
        ]
    assert tags["lake_snapshot"] == str(dataset.source_snapshot)
    assert json.loads(tags["feature_views"]) == dataset.feature_views
    assert tags["training_date"] == TRAINING_DATE
    assert tags["dagster_run_id"] in trained["run_url"]
    assert len(tags["dbt_manifest"]) == len(tags["requirements_lock"]) == 16
    record, metrics = platform.registry.registered_record(version), platform.registry.client.get_run(version.run_id).data.metrics
    assert record.training.training_date.isoformat() == TRAINING_DATE
    assert record.precision.largest_difference == metrics["onnx_largest_difference"] < 1e-5
    assert record.precision.rows == metrics["onnx_rows"] > 100


def test_the_bundle_decides_at_the_chosen_threshold(trained: dict[str, Any], platform: Platform, tmp_path: Any) -> None:
    version = platform.registry.get(SOLUTION, trained["version"])
    contract = load(platform.registry.download_bundle(version, tmp_path)).contract
    logged = platform.registry.client.get_run(version.run_id).data.params["chosen_threshold"]
    assert contract.decision_threshold == pytest.approx(float(logged))
    assert contract.decision_threshold not in (0.4, 0.5)


def test_the_same_again_fits_nothing_and_says_why(trained: dict[str, Any], platform: Platform) -> None:
    [model] = [each for each in inprocess.load_assets(SOLUTION) if dg.AssetKey([SOLUTION, "model"]) in each.keys]
    result = dg.materialize(
        [model],
        resources=platform.resources,
        partition_key=TRAINING_DATE,
        run_config={"ops": {f"{SOLUTION}__model": {"config": {"overrides": OVERRIDES}}}},
    )
    [event] = result.asset_materializations_for_node(f"{SOLUTION}__model")
    assert event.metadata["model_version"].value == trained["version"]
    assert f"Nothing was fitted: version {trained['version']} was, on the same dataset" in str(event.metadata["skipped"].value)
    candidate = platform.registry.by_alias(SOLUTION, f"candidate-{TRAINING_DATE}")
    assert candidate is not None
    assert candidate.version == trained["version"]
