import io

from PIL import Image

from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.search import SearchResult, TrialResult
from mlops_assets.ml.search_plot import search_plot, search_table


def trial(ordinal: int, value: float | None, **parameters: float) -> TrialResult:
    return TrialResult(
        ordinal=ordinal,
        step=PipelineStep("package.Forest", parameters),
        state="pruned" if value is None else "complete",
        value=value,
        fold_scores=(0.6, 0.7),
        seconds=1.0,
        error=None,
    )


TRIALS = (trial(0, 0.70, depth=3), trial(1, None, depth=9), trial(2, 0.75, depth=5, rate=0.123456), trial(3, 0.72, depth=6))


def test_the_table_has_the_best_first_and_names_the_default() -> None:
    lines = search_table(SearchResult(TRIALS, TRIALS[2], greater_is_better=True), "roc_auc").splitlines()
    assert lines[2] == "| 3 | 0.75000 | 1.0 | Forest: depth: 5, rate: 0.1235 |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["3", "4", "1 (default)"]
    least = search_table(SearchResult(TRIALS, TRIALS[0], greater_is_better=False), "log_loss").splitlines()
    assert [line.split("|")[1].strip() for line in least[2:]] == ["1 (default)", "4", "3"]


def test_the_default_is_in_the_table_however_bad_it_is() -> None:
    trials = (trial(0, 0.1), *(trial(number, 0.5 + number / 100) for number in range(1, 30)))
    lines = search_table(SearchResult(trials, trials[-1], greater_is_better=True), "roc_auc").splitlines()
    assert len(lines) == 13
    assert lines[-1].startswith("| 1 (default) | 0.10000 |")


def test_the_plot_is_an_image_that_equal_results_repeat() -> None:
    result = SearchResult(TRIALS, TRIALS[2], greater_is_better=True)
    png = search_plot(result, "roc_auc")
    assert Image.open(io.BytesIO(png)).size == (576, 288)
    assert search_plot(result, "roc_auc") == png
    assert search_plot(SearchResult(TRIALS[:1], TRIALS[0], greater_is_better=True), "roc_auc") != png
