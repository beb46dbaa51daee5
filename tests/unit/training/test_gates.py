"""The gates on evaluations of real arrays: what passes, what fails, and what they say."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import yaml

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.ml.bootstrap import Interval, number_blocks
from mlops_assets.ml.comparison import MetricDifference, compare_models
from mlops_assets.ml.evaluation import Evaluation, Resampling, constant_predictions, evaluate
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import metric_names
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.latency import Latency
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.gate import CandidateResult, check_evaluation, gate_rules, rejection_reason
from mlops_assets.training.recorded_checks import DatasetState

FIXTURE = Path(__file__).parents[2] / "fixtures" / "solutions" / "valid" / "every_field.yaml"
ROWS = 4000
RANDOM = np.random.default_rng(5)
LABELS = (RANDOM.random(ROWS) < 0.3).astype(np.int64)
PROBABILITIES = 1 / (1 + np.exp(-(RANDOM.normal(0, 1, ROWS) + 1.5 * LABELS - 1.5)))
SLICES = pa.table({"carrier": np.where(np.arange(ROWS) < 3000, "AA", np.where(np.arange(ROWS) < 3750, "UA", "ZZ"))})
SHUFFLED = np.random.default_rng(0).permutation(PROBABILITIES)
DATASET = DatasetState(
    run_id="run",
    passed=("duplicates", "label_rate", "leakage_guard", "missing", "row_count", "schema"),
    failed=(),
    warned=(),
    unchanged=True,
)
CHAMPION = RegisteredModel("late_arrival", 4, "run", {})


def inputs_with(**gates: Any) -> SolutionInputs:
    """The solution of the fixture with fields of its gates changed."""
    attributes = yaml.safe_load(FIXTURE.read_text())["attributes"]
    attributes["gates"] |= gates
    return resolve_inputs(Solution.model_validate(attributes), registry())


@cache
def registry() -> FeatureRegistry:
    return FeatureRegistry.from_manifest(current_project().dbt_manifest)


RESAMPLING = Resampling(seed=0, slice_metrics=("roc_auc",), blocks=number_blocks(np.arange(ROWS) // 100))


def evaluation(predictions: np.ndarray) -> Evaluation:
    return evaluate(
        problem="binary_classification",
        metrics=metric_names("binary_classification"),
        labels=LABELS,
        predictions=predictions,
        training_labels=LABELS,
        classes=(0, 1),
        threshold=0.3,
        slices=SLICES,
        minimum_slice_rows=200,
        resampling=RESAMPLING,
    )


def candidate_result(predictions: np.ndarray, champion: np.ndarray | None = None) -> CandidateResult:
    result = evaluation(predictions)

    def against(theirs: np.ndarray) -> dict[str, MetricDifference]:
        evaluated = WeightedMetrics("binary_classification", LABELS, theirs, (0, 1), 0.3)
        return compare_models(result, evaluated, names=("roc_auc", "log_loss"), resampling=RESAMPLING)

    return CandidateResult(
        result=result,
        against_baseline=against(constant_predictions("binary_classification", "roc_auc", LABELS, (0, 1), ROWS))["roc_auc"],
        champion=None if champion is None else CHAMPION,
        against_champion={} if champion is None else against(champion),
        not_compared="there is no champion to compare with",
        latency=Latency(p50=1.0, p99=3.0, rows=200),
        dataset=DATASET,
    )


@pytest.fixture(scope="module")
def good() -> CandidateResult:
    return candidate_result(PROBABILITIES)


@pytest.fixture(scope="module")
def shuffled() -> CandidateResult:
    """What a model fitted on shuffled labels gives, beside a champion that knows something."""
    return candidate_result(SHUFFLED, champion=PROBABILITIES)


def outcome(inputs: SolutionInputs, evaluated: CandidateResult) -> dict[str, dg.AssetCheckResult]:
    return {str(check.check_name): check for check in check_evaluation(inputs, evaluated)}


def test_a_good_candidate_passes_every_gate_with_its_evidence(good: CandidateResult) -> None:
    inputs = inputs_with(worst_slice={"roc_auc": 0.6})
    checks = outcome(inputs, good)
    assert list(checks) == [
        "group_differences",
        "dataset_checks",
        "baseline",
        "floor",
        "worst_slice",
        "calibration",
        "against_champion",
        "refit",
        "latency",
    ]
    assert list(checks) == [rule.name for rule in gate_rules(inputs.solution)]
    assert {name for name, check in checks.items() if not check.passed} == set()
    assert rejection_reason(list(checks.values())) is None
    assert all(check.metadata and check.description for check in checks.values())
    interval = good.result.intervals["roc_auc"]
    assert interval is not None
    assert f"[{interval.low:.4g}, {interval.high:.4g}], floor 0.6" in str(checks["floor"].description)
    assert checks["floor"].metadata["rows"].value == ROWS
    assert checks["worst_slice"].metadata["slices_evaluated"].value == 3


def test_gates_that_the_yaml_does_not_ask_for_are_not_there() -> None:
    solution = inputs_with(floor={}, worst_slice={}, groups={}, maximum_calibration_error=None).solution
    assert [rule.name for rule in gate_rules(solution)] == ["dataset_checks", "baseline", "against_champion", "refit", "latency"]


def test_a_model_of_shuffled_labels_is_refused_for_every_reason(shuffled: CandidateResult) -> None:
    checks = outcome(inputs_with(worst_slice={"roc_auc": 0.6}, maximum_calibration_error=0.1), shuffled)
    failed = {name for name, check in checks.items() if not check.passed}
    assert failed == {"baseline", "floor", "worst_slice", "calibration", "against_champion"}
    assert all(checks[name].severity == dg.AssetCheckSeverity.WARN for name in failed)
    because = rejection_reason(list(checks.values()))
    assert because is not None
    assert because.startswith("baseline: roc_auc ")
    assert "not better beyond chance" in because
    assert "against_champion: roc_auc" in because
    assert "(version 4 on the same 4,000 rows of 40 days)" in because


def test_the_baseline_is_not_beaten_by_luck(good: CandidateResult) -> None:
    lucky = MetricDifference("roc_auc", 0.51, 0.5, 0.01, Interval(-0.002, 0.022))
    assert not outcome(inputs_with(), replace(good, against_baseline=lucky))["baseline"].passed
    # A constant prediction that never decides for the positive class has no precision.
    undefined = MetricDifference("precision", 0.4, None, None, None)
    assert outcome(inputs_with(), replace(good, against_baseline=undefined))["baseline"].passed


def test_a_floor_is_an_upper_bound_where_smaller_is_better(good: CandidateResult) -> None:
    loss = good.result.metrics["log_loss"]
    assert loss is not None
    assert outcome(inputs_with(floor={"log_loss": loss}), good)["floor"].passed
    missed = outcome(inputs_with(floor={"roc_auc": 0.6, "log_loss": loss - 0.001}), good)["floor"]
    assert not missed.passed
    assert str(missed.description).endswith("missed")
    assert str(missed.description).count("missed") == 1


def test_a_slice_below_its_floor_is_refused_unless_chance_explains_it(good: CandidateResult) -> None:
    by_slice = {each.value: each for each in good.result.slices}
    small = by_slice["ZZ"]
    value, interval = small.metrics["roc_auc"], small.intervals["roc_auc"]
    assert value is not None
    assert interval is not None
    others = min(by_slice[name].intervals["roc_auc"].high for name in ("AA", "UA"))  # type: ignore[union-attr]
    # Between the value and the upper end of the interval: may be chance.
    assert outcome(inputs_with(worst_slice={"roc_auc": min(value + 1e-6, others)}), good)["worst_slice"].passed
    refused = outcome(inputs_with(worst_slice={"roc_auc": interval.high + 0.05}), good)["worst_slice"]
    assert not refused.passed
    assert "where carrier = ZZ (250 rows)" in str(refused.description)


def test_the_champion_is_only_compared_when_it_can_be(good: CandidateResult) -> None:
    alone = outcome(inputs_with(), good)["against_champion"]
    assert (alone.passed, alone.description) == (True, "there is no champion to compare with")
    equal = replace(candidate_result(PROBABILITIES, champion=PROBABILITIES), must_gain=True)
    refused = outcome(inputs_with(), equal)["against_champion"]
    assert not refused.passed
    assert "not better beyond chance, and nothing shows that newer history helps" in str(refused.description)
    better = replace(candidate_result(PROBABILITIES, champion=SHUFFLED), must_gain=True)
    assert outcome(inputs_with(), better)["against_champion"].passed
    same = outcome(inputs_with(against_champion={"roc_auc": 0.0}), candidate_result(PROBABILITIES, champion=PROBABILITIES))
    assert same["against_champion"].passed


def test_without_a_stated_tolerance_a_worse_model_does_not_replace_the_champion(
    good: CandidateResult, shuffled: CandidateResult
) -> None:
    inputs = inputs_with(against_champion={})
    refused = outcome(inputs, shuffled)["against_champion"]
    assert not refused.passed
    assert str(refused.description).startswith("roc_auc 0.")
    assert "is worse (version 4 on the same 4,000 rows of 40 days; no tolerance is stated" in str(refused.description)
    assert refused.metadata["tolerance_is_stated"].value is False
    assert refused.metadata["drawn_for_intervals"].value == "4,000 rows of 40 days"
    equal = np.clip(PROBABILITIES + np.random.default_rng(1).normal(0, 0.001, ROWS), 0, 1)
    assert outcome(inputs, candidate_result(equal, champion=PROBABILITIES))["against_champion"].passed
    # The team may tolerate more.
    assert outcome(inputs_with(against_champion={"roc_auc": 1.0}), shuffled)["against_champion"].passed
    # Of many rows, a certain difference of next to nothing is no reason to keep an older model.
    for lost, passed in ((0.0005, True), (0.003, False)):
        difference = MetricDifference("roc_auc", 0.9 - lost, 0.9, -lost, Interval(-lost - 0.0001, -lost + 0.0001))
        check = outcome(inputs, replace(shuffled, against_champion={"roc_auc": difference}))["against_champion"]
        assert check.passed is passed
        assert "0.002, a fiftieth of the way to perfect" in str(check.description)


def test_a_recalibration_that_ranks_as_before_and_loses_more_is_refused() -> None:
    flat = np.clip(0.5 + (PROBABILITIES - 0.5) / 10, 0, 1)
    fitted = candidate_result(flat, champion=PROBABILITIES)
    inputs = inputs_with(against_champion={})
    assert outcome(inputs, fitted)["against_champion"].passed
    refused = outcome(inputs, replace(fitted, is_recalibration=True))["against_champion"]
    assert not refused.passed
    assert "log_loss" in str(refused.description)
    back = replace(candidate_result(PROBABILITIES, champion=flat), is_recalibration=True)
    assert outcome(inputs, back)["against_champion"].passed


def test_a_refit_that_lost_what_the_gates_saw_is_refused(good: CandidateResult) -> None:
    alone = outcome(inputs_with(), good)["refit"]
    assert (alone.passed, alone.description) == (True, "the model that serves is the one that the gates evaluated")
    lead = good.against_baseline.value
    assert lead is not None
    little, much = -0.05 * lead, -0.5 * lead
    for lost, passed in ((0.01, True), (little, True), (much, False)):
        difference = MetricDifference("roc_auc", 0.8 + lost, 0.8, lost, Interval(lost - 0.001, lost + 0.001))
        check = outcome(inputs_with(), replace(good, refit=difference))["refit"]
        assert check.passed is passed
        assert "on the hold-out that it has seen" in str(check.description)
    assert not outcome(inputs_with(), replace(good, refit=MetricDifference("roc_auc", None, 0.8, None, None)))["refit"].passed


def test_a_champion_that_knows_the_hold_out_is_compared_as_it_was_before(shuffled: CandidateResult) -> None:
    check = outcome(inputs_with(), replace(shuffled, champion_is_gated_fit=True))["against_champion"]
    assert "(version 4 as it was before its refit on the same 4,000 rows of 40 days)" in str(check.description)


def test_a_slow_bundle_is_refused(good: CandidateResult) -> None:
    assert outcome(inputs_with(maximum_latency_milliseconds=3.0), good)["latency"].passed
    slow = outcome(inputs_with(maximum_latency_milliseconds=2.9), good)["latency"]
    assert not slow.passed
    assert slow.description == "p50 1 ms, p99 3 ms, limit 2.9 ms"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"failed": ("missing",), "passed": tuple(set(DATASET.passed) - {"missing"})}, "failed: missing"),
        ({"passed": DATASET.passed[1:]}, "never ran: duplicates"),
        ({"unchanged": False}, "the dataset was written again with other rows"),
    ],
)
def test_a_dataset_that_is_not_sound_refuses_its_model(good: CandidateResult, changes: dict[str, Any], sentence: str) -> None:
    check = outcome(inputs_with(), replace(good, dataset=replace(DATASET, **changes)))["dataset_checks"]
    assert not check.passed
    assert sentence in str(check.description)


def test_a_warning_of_the_dataset_is_named_and_stops_nothing(good: CandidateResult) -> None:
    check = outcome(inputs_with(), replace(good, dataset=replace(DATASET, warned=("constant_columns",))))["dataset_checks"]
    assert check.passed
    assert check.description == "6 checks of the dataset passed; warnings: constant_columns"
