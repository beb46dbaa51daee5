"""The bundle of a fitted model, read back as a server reads it."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from bundles import load
from evaluated_candidates import SCHEMA, case
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.clients.registered_model import DATASET_FINGERPRINT_TAG, RegisteredModel
from mlops_assets.ml.matrix import to_frame
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.schema.problem import PROBLEMS, Problem, label_array
from mlops_assets.training.bundle_writing import _json_value, parity_sample, write_model_bundle
from mlops_assets.training.export import export_model


@settings(max_examples=examples(20))
@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.times()
)
def test_every_value_of_a_spine_can_be_sent(value: object) -> None:
    sent = json.loads(json.dumps(_json_value(value)))
    match value:
        case datetime() | date():
            assert type(value).fromisoformat(sent) == value
        case Decimal():
            assert sent == pytest.approx(float(value))
        case None | bool() | int() | float() | str():
            assert (sent, type(sent)) == (value, type(value))
        case _:
            assert sent == str(value)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_bundle_answers_its_sample_as_the_pipeline_did(problem: Problem, tmp_path: Path) -> None:
    chosen = case(problem)
    solution = chosen.inputs.solution
    labels = label_array(chosen.train.column(solution.spine.label), problem)
    estimator = PipelineStep(solution.training.estimator.type, solution.training.estimator.parameters)
    pipeline = build_pipeline(problem=problem, schema=SCHEMA, estimator=estimator, numeric=None, categorical=None, seed=0)
    fit_pipeline(pipeline, to_frame(chosen.train, SCHEMA), labels)
    holdout = chosen.holdout.slice(0, 50)
    sample = parity_sample(chosen.inputs, pipeline, SCHEMA, holdout)
    assert len(sample.rows) == 20
    assert sample.rows[0].request["flight_id"] == holdout["flight_id"][0].as_py()
    assert sample.rows[-1].request["flight_id"] == holdout["flight_id"][-1].as_py()
    registered = RegisteredModel("example", 3, "run 3", {DATASET_FINGERPRINT_TAG: "f" * 16})
    write_model_bundle(
        tmp_path / "3",
        chosen.inputs,
        schema=SCHEMA,
        train=chosen.train,
        sample=sample,
        model=export_model(pipeline, SCHEMA, solution),
        threshold=0.4 if problem == "binary_classification" else None,
        registered=registered,
    )
    bundle = load(tmp_path / "3")
    contract = bundle.contract
    assert (contract.name, contract.version, contract.run_id, contract.dataset_fingerprint) == ("example", 3, "run 3", "f" * 16)
    assert contract.classes == (() if problem == "regression" else tuple(np.unique(labels).tolist()))
    assert [column.name for column in contract.request_columns] == ["distance", "day_of_week", "carrier"]
    assert [feature.name for feature in contract.derived_features] == ["is_weekend"]
