"""Recalibrated bundles: one file, other answers, the same for one row as for many, and the labels of before where a threshold was chosen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import Fitted, contract, fit_flights, load
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from mlops_assets.ml.recalibration_methods import METHODS, Method
from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.serving.bundle import Bundle, BundleError
from mlops_assets.serving.contract import BaseVersion, Contract
from mlops_assets.serving.recalibrated_model import RecalibratedModel, apply_contract, recalibrate_bundle

PARAMETERS: dict[Method, dict[str, float | tuple[float, ...]]] = {
    "sigmoid": {"slope": 0.7, "intercept": -1.2},
    "isotonic": {"scores": (0.1, 0.4, 0.9), "probabilities": (0.05, 0.1, 0.6)},
    "temperature": {"factors": (0.6, 0.6, 0.6), "shifts": (0.0, 0.0, 0.0)},
    "vector": {"factors": (0.6, 1.5, 1.0), "shifts": (0.3, 0.0, -0.3)},
    "linear": {"factor": 1.3, "shift": -20.0},
}
CASES: list[tuple[Problem, Method]] = [(problem, method) for problem in PROBLEMS for method in METHODS[problem]]


def base_version(method: Method) -> BaseVersion:
    return BaseVersion(version=1, method=method, parameters=PARAMETERS[method])


class Answers:
    """A model whose answers are the numeric features."""

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        return numeric


@pytest.fixture(scope="module", params=PROBLEMS)
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return fit_flights(request.param, version=1)


@pytest.fixture(scope="module")
def bundle(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load(fitted.write(tmp_path_factory.mktemp("bundle") / "1"))


def test_a_recalibrated_bundle_has_the_file_of_its_base_and_answers_otherwise(
    fitted: Fitted, bundle: Bundle, tmp_path: Path
) -> None:
    base = base_version(METHODS[bundle.contract.problem][0])
    recalibrated = fitted.recalibrate(base, version=2)
    read = load(recalibrated.write(tmp_path / "2"))
    assert read.contract == recalibrated.contract
    assert (read.contract.version, read.contract.recalibration) == (2, base)
    assert read.contract.model_sha256 == bundle.contract.model_sha256
    assert (read.path / read.contract.model_file).read_bytes() == (bundle.path / bundle.contract.model_file).read_bytes()
    matrices = bundle.sample.matrices(bundle.contract.feature_schema)
    before, after = bundle.predict(*matrices), read.predict(*matrices)
    assert after.dtype == np.float32
    shown = before[:, 1] if bundle.contract.problem == "binary_classification" else before
    expected = base.recalibration.apply(shown).astype(np.float32)
    np.testing.assert_array_equal(after[:, 1] if bundle.contract.problem == "binary_classification" else after, expected)
    assert not np.array_equal(before, after)


def test_answers_that_are_not_recalibrated_or_twice_are_refused(bundle: Bundle) -> None:
    recalibrated = recalibrate_bundle(bundle, base_version(METHODS[bundle.contract.problem][0]))
    for model in (bundle.model, apply_contract(recalibrated.model, recalibrated.contract)):
        with pytest.raises(BundleError, match="does not answer its sample as the fitted model did"):
            replace(recalibrated, model=model).verify()
    recalibrated.verify()


def test_a_sample_allows_what_a_steep_recalibration_makes_of_a_small_difference(tmp_path: Path) -> None:
    fitted = fit_flights("regression")
    bundle = load(fitted.write(tmp_path / "1"))
    steep = BaseVersion(version=1, method="linear", parameters={"factor": 50.0, "shift": 0.0})
    recalibrated = recalibrate_bundle(bundle, steep)
    assert (
        bundle.sample.maximum_difference < recalibrated.sample.maximum_difference <= 50 * bundle.sample.maximum_difference * 1.01
    )
    answers = np.array([row.answer for row in bundle.sample.rows]) + 0.9 * bundle.sample.maximum_difference
    assert recalibrated.sample.difference(50 * answers) <= recalibrated.sample.maximum_difference


@pytest.mark.parametrize(("problem", "method"), CASES)
@given(data=st.data())
def test_a_row_is_answered_alone_as_among_others(problem: Problem, method: Method, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 70))
    width = {"regression": 1, "binary_classification": 2, "multiclass_classification": 3}[problem]
    if problem == "regression":
        answers = data.draw(arrays(np.float32, (rows, width), elements=st.floats(width=32)))
    else:
        answers = data.draw(arrays(np.float32, (rows, width), elements=st.floats(0, 1, width=32)))
    model = RecalibratedModel(Answers(), problem, base_version(method).recalibration)
    together = model.predict(answers, answers)
    alone = np.concatenate([model.predict(answers[row : row + 1], answers) for row in range(rows)])
    np.testing.assert_array_equal(alone, together)
    # As from an engine whose answers lie otherwise in memory.
    np.testing.assert_array_equal(model.predict(np.asfortranarray(answers), answers), together)
    assert together.dtype == np.float32
    assert together.shape == answers.shape
    if problem != "regression":
        assert ((together >= 0) & (together <= 1)).all()
        np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)


@given(
    scores=arrays(np.float32, 50, elements=st.floats(0.125, 0.9375, width=32)),
    threshold=st.floats(0.1, 0.95).filter(lambda value: value != 0.5),
    slope=st.floats(0.2, 5),
    intercept=st.floats(-3, 3),
)
def test_labels_by_a_chosen_threshold_stay(
    binary: Bundle, scores: np.ndarray, threshold: float, slope: float, intercept: float
) -> None:
    chosen = Contract.model_validate(binary.contract.model_dump() | {"decision_threshold": threshold})
    base = BaseVersion(version=1, method="sigmoid", parameters={"slope": slope, "intercept": intercept})
    before = replace(binary, contract=chosen, model=Answers())
    recalibrated = recalibrate_bundle(before, base)
    scores[0] = np.float32(threshold)
    probabilities = np.column_stack([1 - scores, scores])
    bent = recalibrated.predict(probabilities, probabilities)
    (_, labels), (new_scores, new_labels) = before.decide(probabilities), recalibrated.decide(bent)
    # Scores that float32 holds apart may be one recalibrated score.
    differing = new_scores != np.float32(recalibrated.contract.decision_threshold)
    np.testing.assert_array_equal(new_labels[differing], labels[differing])
    assert new_labels[0] == 1
    assert [recalibrated.decide_row(row)[1] for row in bent.tolist()] == new_labels.tolist()


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load(fit_flights("binary_classification").write(tmp_path_factory.mktemp("binary") / "1"))


def test_the_default_threshold_is_one_of_the_recalibrated_probability(binary: Bundle) -> None:
    default = Contract.model_validate(binary.contract.model_dump() | {"decision_threshold": 0.5})
    recalibrated = recalibrate_bundle(replace(binary, contract=default), base_version("sigmoid"))
    assert recalibrated.contract.decision_threshold == 0.5


def test_a_method_of_another_problem_is_refused() -> None:
    with pytest.raises(ValidationError, match="sigmoid does not recalibrate a regression"):
        contract(recalibration=base_version("sigmoid").model_dump())


def test_answers_that_are_no_numbers_stay_none(binary: Bundle) -> None:
    model = RecalibratedModel(Answers(), "binary_classification", base_version("sigmoid").recalibration)
    assert np.isnan(model.predict(np.full((1, 2), np.nan, dtype=np.float32), np.empty((1, 0)))).all()
