"""The result of a search for a person: its history as a figure and the best trials as a table."""

from mlops_assets.ml.figures import BLUE, GREY, ORANGE, create_figure, label_axes, png_image
from mlops_assets.ml.search import SearchResult, TrialResult

_SHOWN_TRIALS = 10


def search_plot(result: SearchResult, metric: str) -> bytes:
    """Mean of the folds by trial, which were given up, the best so far and the default configuration, as a PNG image."""
    figure, (axes,) = create_figure(7.2, 3.6, 1)
    complete = [(trial.ordinal + 1, trial.value) for trial in result.trials if trial.value is not None]
    # Scores of the first folds alone are no match for means over all: only the place of a pruned trial is shown.
    pruned = [trial.ordinal + 1 for trial in result.trials if trial.state == "pruned"]
    bottom = min(value for _, value in complete)
    axes.scatter([at for at, _ in complete], [value for _, value in complete], s=18, color=BLUE, label="complete", zorder=3)
    axes.scatter(pruned, [bottom] * len(pruned), s=18, marker="x", color=GREY, label="given up after a fold", zorder=3)
    better = max if result.greater_is_better else min
    best = [better(value for at, value in complete if at <= trial.ordinal + 1) for trial in result.trials]
    axes.step(
        [trial.ordinal + 1 for trial in result.trials], best, where="post", color=ORANGE, linewidth=1.2, label="best so far"
    )
    if result.default.value is not None:
        axes.axhline(result.default.value, color=GREY, linestyle="--", linewidth=1, label="default configuration")
    label_axes(axes, f"Search: {metric} in cross-validation", "trial", metric)
    axes.legend(fontsize=8, frameon=False, loc="center right")
    return png_image(figure)


def search_table(result: SearchResult, metric: str) -> str:
    """The best trials and the default as a Markdown table."""
    complete = [(trial.value, trial) for trial in result.trials if trial.value is not None]
    ranked = sorted(complete, key=lambda pair: pair[0], reverse=result.greater_is_better)
    trials = [trial for _, trial in ranked[:_SHOWN_TRIALS]]
    if result.default not in trials:
        trials.append(result.default)
    return f"| trial | {metric} | seconds | configuration |\n|---|---|---|---|\n" + "\n".join(map(_row, trials))


def _row(trial: TrialResult) -> str:
    values = ", ".join(
        f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in trial.step.parameters.items()
    )
    name = f"{trial.ordinal + 1} (default)" if trial.ordinal == 0 else str(trial.ordinal + 1)
    return f"| {name} | {trial.value:.5f} | {trial.seconds:.1f} | {trial.step.class_path.rpartition('.')[2]}: {values} |"
