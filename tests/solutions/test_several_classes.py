"""A problem of three classes from raw rows to outcomes: which airport a flight leaves from, on the tables that the demo loaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import inprocess
import pytest
import requests
from bundles import load
from running_stack import Demo, Platform
from waiting import wait_for

from mlops_assets.access.credentials import serving_token
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.deployment.deployment import build_deployment
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.features.online_features import build_online_features
from mlops_assets.predictions.outcomes import build_outcomes
from mlops_assets.predictions.prediction_log import build_prediction_log
from mlops_assets.predictions.predictions import build_predictions
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model
from mlops_assets.training.training_dataset import build_training_dataset

pytestmark = pytest.mark.long

SOLUTION = "departure_airport"
TRAINING_DATE, LAST = "2013-02-01", "2013-02-02"
TRAINING = (build_training_dataset, build_model, build_evaluation, build_online_features, build_deployment)
SCORING = (build_predictions, build_outcomes)
BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
ATTRIBUTES = {
    "name": SOLUTION,
    "description": "The airport that a flight leaves from.",
    "owners": ["team:a"],
    "problem": "multiclass_classification",
    "partitions": {"column": "flight_date", "start": "2013-01-01", "end": "2014-01-01", "time_zone": "America/New_York"},
    "spine": {
        "model": "flight_delay_spine",
        "key": "flight_id",
        "prediction_time": "predicted_at",
        "label": "origin",
        "label_time": "arrived_at",
    },
    "features": [
        {"request": ["scheduled_minute_of_day", "day_of_week", "scheduled_duration_minutes"]},
        {"view": "flight_number_history"},
    ],
    "training": {
        "window": "31d",
        "holdout": "7d",
        "metric": "log_loss",
        # With few bins: scikit-learn finds those of weighted rows one by one, each by all rows.
        "class_weight": "balanced",
        "estimator": {"type": BOOSTING, "parameters": {"max_iter": 10, "max_bins": 31}},
        "folds": 2,
        "search": {
            "trials": 2,
            "candidates": [
                {
                    "type": BOOSTING,
                    "parameters": {"max_iter": 20, "max_bins": 31},
                    "space": {"max_leaf_nodes": {"low": 8, "high": 31}},
                }
            ],
        },
    },
    "segments": {"column": "carrier", "values": ["UA"]},
    "gates": {"floor": {"roc_auc": 0.55}, "slices": ["day_of_week"], "worst_slice": {"roc_auc": 0.5}},
    "serving": {"engine": "worker"},
}


@pytest.fixture(scope="module")
def inputs() -> SolutionInputs:
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    return resolve_inputs(Solution.model_validate(ATTRIBUTES), registry)


@pytest.fixture(scope="module")
def instance() -> dg.DagsterInstance:
    """A Dagster that remembers the checks of the dataset and of the online store, which are gates."""
    return dg.DagsterInstance.ephemeral()


def run(
    platform: Platform,
    instance: dg.DagsterInstance,
    inputs: SolutionInputs,
    factories: Sequence[Any],
    first: str,
    last: str,
    run_config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize what the factories build."""
    assets = [build(inputs) for build in factories]
    keys = [key.to_user_string() for asset in assets for key in asset.keys]
    result = inprocess.materialize(
        assets, keys, first=first, last=last, resources=platform.resources, instance=instance, run_config=run_config
    )
    assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))
    return result


def values(result: dg.ExecuteInProcessResult, stage: str) -> dict[str, Any]:
    """Values in the metadata of the last materialization of a stage."""
    events = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey([SOLUTION, stage])]
    return {name: entry.value for name, entry in events[-1].step_materialization_data.materialization.metadata.items()}


@pytest.fixture(scope="module")
def trained(platform: Platform, demo: Demo, instance: dg.DagsterInstance, inputs: SolutionInputs) -> dg.ExecuteInProcessResult:
    return run(platform, instance, inputs, TRAINING, TRAINING_DATE, TRAINING_DATE)


@pytest.fixture(scope="module")
def scored(
    platform: Platform, instance: dg.DagsterInstance, inputs: SolutionInputs, trained: dg.ExecuteInProcessResult
) -> dg.ExecuteInProcessResult:
    return run(platform, instance, inputs, SCORING, TRAINING_DATE, LAST)


def test_a_search_is_evaluated_and_deployed(platform: Platform, trained: dg.ExecuteInProcessResult) -> None:
    assert values(trained, "model")["trials"] == 2
    evaluated = values(trained, "evaluation")
    assert evaluated["gates_passed"]
    assert evaluated["log_loss"] < evaluated["naive_baseline"]["log_loss"]
    assert "| EWR |" in evaluated["model_card"] or "EWR, JFK, LGA" in evaluated["model_card"]
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert values(trained, "deployment")["model_version"] == champion.version


def test_every_flight_has_a_probability_of_each_class(platform: Platform, scored: dg.ExecuteInProcessResult) -> None:
    rows = platform.rows(
        f"SELECT predicted_label, score, probabilities FROM {SOLUTION}.predictions WHERE flight_date <= DATE '{LAST}'"
    )
    assert len(rows) == platform.value(
        f"SELECT count(*) FROM flight_delay.spine WHERE flight_date BETWEEN DATE '{TRAINING_DATE}' AND DATE '{LAST}'"
    )
    for label, score, probabilities in rows[:500]:
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert (label, score) == (("EWR", "JFK", "LGA")[probabilities.index(max(probabilities))], max(probabilities))
    realised = values(scored, "outcomes")
    assert realised["log_loss"] < realised["naive_baseline"]["log_loss"]


def test_trained_again_nothing_is_fitted(
    platform: Platform, instance: dg.DagsterInstance, inputs: SolutionInputs, trained: dg.ExecuteInProcessResult
) -> None:
    again = run(platform, instance, inputs, [build_model], TRAINING_DATE, TRAINING_DATE)
    assert values(again, "model")["reused"]
    assert str(values(again, "model")["skipped"]).startswith("Nothing was fitted")


def test_a_carrier_with_a_model_of_its_own_is_predicted_by_it(
    platform: Platform, instance: dg.DagsterInstance, inputs: SolutionInputs, scored: dg.ExecuteInProcessResult
) -> None:
    segments = inputs.of_segments
    assert segments is not None
    partition = dg.MultiPartitionKey({"segment": "UA", "training_date": TRAINING_DATE})
    trained = run(platform, instance, segments, [build_model, build_evaluation, build_deployment], partition, partition)
    version = values(trained, "segment_deployment")["model_version"]
    configuration = {"supersede": True, "reason": "a carrier has a model of its own"}
    run_config = {"ops": {f"{SOLUTION}__predictions": {"config": configuration}}}
    run(platform, instance, inputs, SCORING, TRAINING_DATE, LAST, run_config)
    versions = dict(
        platform.rows(
            f"SELECT carrier = 'UA', list(DISTINCT model_version) FROM {SOLUTION}.predictions WHERE _counted GROUP BY ALL"
        )
    )
    assert versions[True] == [version]
    assert version not in versions[False]


def test_a_worker_of_the_stacks_server_answers_as_the_batch_and_is_logged(
    platform: Platform, instance: dg.DagsterInstance, inputs: SolutionInputs, scored: dg.ExecuteInProcessResult
) -> None:
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    contract = load(platform.settings.serving_directory / SOLUTION / str(champion.version)).contract
    looked_up = [feature for view in contract.feature_views for feature in view.features]
    with platform.lake.connect(read_only=True) as connection:
        # Of the champion of all rows, whichever of them have a model of their own.
        [row] = (
            connection.execute(
                f"FROM {SOLUTION}.predictions WHERE model_version = {champion.version} AND carrier <> 'UA' ORDER BY 1 LIMIT 1"
            )
            .to_arrow_table()
            .to_pylist()
        )
    request = {name: row[name] for name in (contract.key.name, *contract.columns)}
    request |= {contract.prediction_time_column: row[contract.prediction_time_column].isoformat()}
    request |= {"features": {name: row[name] for name in looked_up}}
    address = f"{platform.settings.serving_url}/{SOLUTION}"
    headers = {"Authorization": f"Bearer {serving_token(platform.settings)}"}

    def served() -> Any:
        return requests.get(f"{address}/model", headers=headers, timeout=60)

    # Its workers are started once it is deployed.
    wait_for(lambda: served().ok and served().json()["engine"] == "worker", every=0.5)
    answer = requests.post(f"{address}/predict", json=request, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predicted_label"] == row["predicted_label"]
    assert answer.json()["score"] == pytest.approx(row["score"], abs=1e-6)

    def logged() -> list[tuple[Any, ...]]:
        run(platform, instance, inputs, [build_prediction_log], TRAINING_DATE, TRAINING_DATE)
        return platform.rows(f"SELECT prediction_id, predicted_label FROM {SOLUTION}.prediction_log")

    wait_for(lambda: logged() == [(answer.json()["prediction_id"], row["predicted_label"])], every=2)
