"""Evaluation of a candidate: its bundle on the hold-out, beside a constant prediction and the champion, and the importance of its features.

Numbers only. What they mean for the candidate is the gates' business, how they are shown that of `evaluation_page.py` and
`model_card.py`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.prediction_columns import predictions_array
from mlops_assets.schema.solution import Solution
from mlops_assets.training.gate import CandidateResult
from mlops_assets.training.group_comparison import compare_declared_groups
from mlops_assets.training.recorded_checks import DatasetState

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.importance import Importances
    from mlops_assets.ml.weighted_metrics import WeightedMetrics
    from mlops_assets.serving.bundle import Bundle
    from mlops_assets.serving.contract import Contract

MINIMUM_SLICE_ROWS = 200
_LATENCY_ROWS = 200
_IMPORTANCE_SECONDS = 30.0


@dataclass(frozen=True)
class ComparedChampion:
    """The champion that a candidate is compared with; its bundle is None when it cannot be, and `reason` says why.

    `is_gated_fit` tells that the bundle is that of the fit before the champion's hold-out, since the one that serves has seen rows of this one.
    """

    model: RegisteredModel | None
    bundle: "Bundle | None"
    reason: str
    is_gated_fit: bool = False


@dataclass(frozen=True)
class CandidateEvaluation:
    """An evaluated candidate: the values that the gates read, the scored hold-out with its labels, and the importance of the features."""

    candidate_result: CandidateResult
    labels: "np.ndarray"
    scored: "pa.Table"
    importances: "Importances | None"


def evaluate_candidate(
    solution: Solution,
    bundle: "Bundle",
    *,
    rival: ComparedChampion,
    holdout: "pa.Table",
    training_labels: "np.ndarray",
    dataset: DatasetState,
    served: "Bundle | None" = None,
    must_gain: bool = False,
) -> CandidateEvaluation:
    """Evaluate the candidate's `bundle` on the `holdout` rows. `training_labels` are the labels that it was fitted on.

    `served` is the bundle that will serve, fitted again with the hold-out; None: it is `bundle`. With `must_gain` it must be better than the
    `rival`.
    """
    from mlops_assets.ml.comparison import compare_models
    from mlops_assets.ml.evaluation import Resampling, constant_predictions, evaluate
    from mlops_assets.ml.weighted_metrics import WeightedMetrics
    from mlops_assets.schema.problem import label_array
    from mlops_assets.serving.latency import measure_latency

    metric, contract = solution.training.metric, bundle.contract
    labels = label_array(holdout.column(solution.spine.label), solution.problem)
    scored = bundle.score(holdout)
    resampling = Resampling(
        seed=solution.training.seed,
        slice_metrics=tuple(dict.fromkeys([metric, *solution.gates.worst_slice])),
        blocks=blocks_by_day(solution, holdout),
    )
    result = evaluate(
        problem=solution.problem,
        metrics=solution.metrics,
        labels=labels,
        predictions=predictions_array(scored),
        training_labels=training_labels,
        classes=contract.classes,
        threshold=decision_threshold(contract),
        slices=holdout.select(solution.gates.slices),
        minimum_slice_rows=MINIMUM_SLICE_ROWS,
        resampling=resampling,
    )
    constant = WeightedMetrics(
        problem=solution.problem,
        labels=labels,
        predictions=constant_predictions(solution.problem, metric, training_labels, contract.classes, len(labels)),
        classes=contract.classes,
        threshold=decision_threshold(contract),
    )
    against_champion = {}
    if rival.bundle is not None:
        champion_rows = _evaluated_rows(solution, rival.bundle, holdout, labels)
        against_champion = compare_models(result, champion_rows, names=solution.metrics, resampling=resampling)
    refit = None
    if served is not None:
        refitted_rows = _evaluated_rows(solution, served, holdout, labels)
        # The evaluation has the resamples of the fit before it.
        refit = compare_models(result, refitted_rows, names=(metric,), resampling=resampling)[metric].reversed
    predicted = evaluated_predictions(solution, contract, scored, labels)
    groups = compare_declared_groups(solution, predicted, holdout) if solution.gates.groups else []
    candidate_result = CandidateResult(
        result=result,
        against_baseline=compare_models(result, constant, names=(metric,), resampling=resampling)[metric],
        champion=rival.model,
        against_champion=against_champion,
        not_compared=rival.reason,
        champion_is_gated_fit=rival.is_gated_fit,
        refit=refit,
        groups=groups,
        must_gain=must_gain,
        is_recalibration=contract.recalibration is not None,
        latency=measure_latency(served or bundle, holdout, rows=_LATENCY_ROWS),
        dataset=dataset,
    )
    return CandidateEvaluation(
        candidate_result=candidate_result,
        labels=labels,
        scored=scored,
        importances=_importances(solution, bundle, holdout, labels),
    )


def blocks_by_day(solution: Solution, rows: "pa.Table") -> "np.ndarray | None":
    """Number the `rows` by their day, for intervals that draw days; None where there are too few days. Rows of a day share a cause."""
    from mlops_assets.ml.bootstrap import number_blocks

    return number_blocks(rows.column(solution.partitions.column).to_numpy())


def decision_threshold(contract: "Contract") -> float:
    """The decision threshold of a binary problem; any other problem has none, and its metrics do not look at it."""
    return 0.5 if contract.decision_threshold is None else contract.decision_threshold


def comparison_problem(candidate: "Contract", champion: "Contract", holdout: "pa.Table") -> str | None:
    """The reason why the champion cannot be evaluated on the candidate's `holdout`, or None when it can."""
    lacking = [name for name in champion.feature_schema.names if name not in holdout.column_names]
    if lacking:
        return f"version {champion.version}, the champion, reads features that the dataset lacks: {', '.join(lacking)}"
    if set(champion.classes) != set(candidate.classes):
        return f"version {champion.version}, the champion, knows other classes"
    return None


def evaluated_predictions(
    solution: Solution, contract: "Contract", scored: "pa.Table", labels: "np.ndarray"
) -> "WeightedMetrics":
    """The rows that the version of `contract` predicted, `scored`, beside their `labels`."""
    from mlops_assets.ml.evaluation import normalize_predictions
    from mlops_assets.ml.weighted_metrics import WeightedMetrics

    return WeightedMetrics(
        problem=solution.problem,
        labels=labels,
        predictions=normalize_predictions(solution.problem, predictions_array(scored)),
        classes=contract.classes,
        threshold=decision_threshold(contract),
    )


def _evaluated_rows(solution: Solution, bundle: "Bundle", rows: "pa.Table", labels: "np.ndarray") -> "WeightedMetrics":
    return evaluated_predictions(solution, bundle.contract, bundle.score(rows), labels)


def _importances(solution: Solution, bundle: "Bundle", holdout: "pa.Table", labels: "np.ndarray") -> "Importances | None":
    from mlops_assets.ml.importance import permutation_importance

    metric = solution.training.metric

    def value(numeric: "np.ndarray", categorical: "np.ndarray", positions: "np.ndarray") -> float | None:
        scored = bundle.answers_table(bundle.predict(numeric, categorical))
        return evaluated_predictions(solution, bundle.contract, scored, labels[positions]).values((metric,))[metric]

    return permutation_importance(
        table=holdout,
        schema=bundle.contract.feature_schema,
        metric=metric,
        evaluate=value,
        seed=solution.training.seed,
        maximum_seconds=_IMPORTANCE_SECONDS,
    )
