"""What the page of an evaluation shows for each problem."""

import dagster as dg
import numpy as np
import pyarrow as pa
from evaluated_candidates import Candidate

from mlops_assets.schema.problem import label_array
from mlops_assets.training.evaluation_page import draw_plots, plot_metadata, result_metadata

FIGURES = {
    "binary_classification": {"ranking", "calibration", "scores", "confusion"},
    "multiclass_classification": {"confusion"},
    "regression": {"residuals"},
}


def drawn(candidate: Candidate, rows: pa.Table) -> dict[str, bytes]:
    solution = candidate.case.inputs.solution
    labels = label_array(rows.column(solution.spine.label), solution.problem)
    contract = candidate.bundle.contract
    result = candidate.evaluated.candidate_result.result
    return draw_plots(result, labels, candidate.bundle.score(rows), contract.classes, metric=solution.training.metric)


def test_the_figures_suit_the_problem(candidate: Candidate) -> None:
    figures = drawn(candidate, candidate.case.holdout)
    assert set(figures) == FIGURES[candidate.case.inputs.solution.problem] | {"slices_carrier"}
    assert all(png.startswith(b"\x89PNG") for png in figures.values())
    shown = plot_metadata(figures)
    assert set(shown) == {f"plot_{name}" for name in figures}
    assert all(isinstance(value, dg.MarkdownMetadataValue) for value in shown.values())


def test_rows_of_one_class_have_no_ranking(candidate: Candidate) -> None:
    solution, holdout = candidate.case.inputs.solution, candidate.case.holdout
    if solution.problem == "binary_classification":
        one_class = holdout.filter(pa.array(np.asarray(holdout[solution.spine.label]) == 0))
        assert set(drawn(candidate, one_class)) == {"confusion", "slices_carrier"}


def test_metrics_are_numbers_to_plot_and_what_is_not_defined_is_left_out(candidate: Candidate) -> None:
    result = candidate.evaluated.candidate_result.result
    metadata = result_metadata(result)
    baseline = metadata.pop("naive_baseline")
    assert metadata == {name: value for name, value in result.metrics.items() if value is not None}
    assert set(baseline.value) == {name for name, value in result.baseline.items() if value is not None}
