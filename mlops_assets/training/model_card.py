"""The content of a version's model card, from the solution's YAML, the contract, the dataset's record, the evaluation and the gates.

How a card is written is `ml/model_card.py`'s business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.clients.registered_model import COPIED_FROM_TAG, TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.core.environment_files import environment_prefix
from mlops_assets.lake.datasets import RecordedDataset
from mlops_assets.ml.model_card import ModelCard, Section, Table
from mlops_assets.stages.evidence import format_interval, format_value
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import earlier_rows
from mlops_assets.training.candidate_evaluation import MINIMUM_SLICE_ROWS, CandidateEvaluation
from mlops_assets.training.gate import rejection_reason
from mlops_assets.training.recalibrated_version import describe_recalibration

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.contract import CategoricalFeature, Contract, NumericFeature

_NAMED_CATEGORIES = 6
_FURTHER_SLICE_METRICS = 3


@dataclass(frozen=True)
class CardSources:
    """The sources of a card's content. `parameters` are those of the training run, which may have overridden the YAML."""

    inputs: SolutionInputs
    candidate: RegisteredModel
    contract: "Contract"
    evaluated: CandidateEvaluation
    checks: Sequence[dg.AssetCheckResult]
    parameters: Mapping[str, str]
    dataset: RecordedDataset | None
    is_refitted: bool
    training_rows: int
    holdout: "pa.Table"


def build_card(sources: CardSources, *, links: Mapping[str, str], figures: Mapping[str, bytes]) -> ModelCard:
    """The card of the candidate. `figures` are PNG images by name, `links` addresses by text."""
    solution, result = sources.inputs.solution, sources.evaluated.candidate_result.result
    metric = solution.training.metric
    failed = [str(check.check_name) for check in sources.checks if not check.passed]
    headline = (
        f"{metric} {format_value(result.metrics[metric])}{format_interval(result.intervals.get(metric))} on {result.rows:,} rows held out; "
        f"a constant prediction has {format_value(result.baseline[metric])}."
    )
    return ModelCard(
        title=f"{environment_prefix()}{solution.name} version {sources.candidate.version}",
        accepted=not failed,
        headline=f"Gates failed: {', '.join(failed)}. {headline}" if failed else headline,
        facts={
            **_fitted_on(sources),
            "hold-out rows": f"{result.rows:,}",
            "features": str(len(sources.contract.features)),
        },
        links=links,
        sections=(
            _purpose(sources),
            _data(sources),
            _training(sources),
            _metrics(sources, figures),
            *([_slices(sources, figures)] if result.slices else []),
            _features(sources, figures),
            _limits(sources),
            _gates(sources),
            _operation(sources),
        ),
        figures=figures,
    )


def _fitted_on(sources: CardSources) -> dict[str, str]:
    if COPIED_FROM_TAG in sources.candidate.tags:
        facts = {"copied from": sources.candidate.tags[COPIED_FROM_TAG], "trained there for": sources.parameters["trained_for"]}
        return {**facts, "evaluated for": sources.candidate.tags[TRAINING_DATE_TAG]}
    if sources.candidate.recalibration is not None:
        return {"made of": sources.candidate.recalibration}
    served_on = sources.training_rows + (sources.evaluated.candidate_result.result.rows if sources.is_refitted else 0)
    return {
        "trained for": sources.candidate.tags[TRAINING_DATE_TAG],
        "training rows": f"{sources.training_rows:,}",
        "fitted for serving on": f"{served_on:,} rows",
    }


def _purpose(sources: CardSources) -> Section:
    solution = sources.inputs.solution
    facts = {
        "problem": solution.problem.replace("_", " "),
        "label": _described(sources, solution.spine.label),
        "predicted at": _described(sources, solution.spine.prediction_time),
        "label known at": _described(sources, solution.spine.label_time),
        "owners": ", ".join(solution.owners),
    }
    if sources.contract.classes:
        facts["classes"] = ", ".join(map(str, sources.contract.classes))
    if sources.contract.decision_threshold is not None:
        facts["decision threshold"] = format_value(sources.contract.decision_threshold)
    return Section(title="Purpose", paragraphs=(solution.description,), facts=facts)


def _data(sources: CardSources) -> Section:
    import pyarrow.compute as pc

    training, spine = sources.inputs.solution.training, sources.inputs.solution.spine
    times = pc.min_max(sources.holdout.column(spine.prediction_time)).as_py()
    table, day = sources.inputs.spine.table, sources.candidate.tags[TRAINING_DATE_TAG]
    rows, holdout = (
        f"the snapshot of {day}",
        f"{training.holdout_share:.0%} of the rows of each class, chosen by the hash of the key",
    )
    if spine.has_time:
        rows = f"the {training.window} before {day}"
        if wanted := earlier_rows(sources.inputs.solution):
            rows += f", and up to {wanted:,} from before it"
        holdout = (
            f"the last {training.holdout}: predictions from {times['min']:%Y-%m-%d %H:%M} to {times['max']:%Y-%m-%d %H:%M} UTC"
        )
    facts = {
        "rows from": f"{table}: {rows}",
        "hold-out": holdout,
        "feature views": ", ".join(f"{view.name} v{view.version}" for view in sources.contract.feature_views) or "none",
        "fingerprint of the dataset": sources.contract.dataset_fingerprint,
    }
    commands: tuple[str, ...] = ()
    if sources.dataset is not None:
        facts["lake snapshot"] = f"{sources.dataset.source_snapshot}, read by run {sources.dataset.run_id}"
        commands = (f"mlops dataset rebuild {sources.inputs.name} {sources.dataset.fingerprint}",)
    paragraph = "Features are those known at the moment of prediction; labels are those known before the training date."
    return Section(title="Data", paragraphs=(paragraph,), facts=facts, commands=commands)


def _training(sources: CardSources) -> Section:
    told_elsewhere = ("feature_views", "features")
    facts = {name: value for name, value in sorted(sources.parameters.items()) if name not in told_elsewhere}
    paragraph = "The model that serves is the one that was evaluated: it was fitted on the training rows alone."
    if sources.contract.recalibration is not None:
        paragraph = describe_recalibration(
            sources.contract.recalibration.version, sources.parameters, is_refitted=sources.is_refitted
        )
    elif sources.is_refitted:
        paragraph = (
            "The evaluated model was fitted on the training rows alone. The one that serves has the same configuration and was fitted again on "
            "training rows and hold-out together, so that it does not lack the newest rows; the gate `refit` compares both."
        )
    return Section(title="Training", paragraphs=(paragraph,), facts=facts)


def _metrics(sources: CardSources, figures: Mapping[str, bytes]) -> Section:
    candidate_result = sources.evaluated.candidate_result
    result, differences = candidate_result.result, candidate_result.against_champion
    header = ["metric", "value", "95 % interval", "constant prediction"]
    if differences and candidate_result.champion is not None:
        header += [f"champion (version {candidate_result.champion.version})", "difference", "95 % interval"]
    rows = []
    for name, value in result.metrics.items():
        row = [
            name,
            format_value(value),
            format_interval(result.intervals.get(name)).strip(),
            format_value(result.baseline[name]),
        ]
        if differences:
            difference = differences[name]
            row += [format_value(difference.theirs), format_value(difference.value), format_interval(difference.interval).strip()]
        rows.append(tuple(row))
    paragraphs = [
        "On the hold-out, which is later than every training row. Intervals are bootstrap percentiles, "
        + (
            "rows drawn one by one: rows that share a cause make the true uncertainty larger."
            if result.blocks is None
            else f"its {result.blocks:,} days drawn as wholes: rows of a day share causes, such as its weather."
        )
    ]
    if differences:
        paragraphs.append("The champion was evaluated on the same rows; differences are the candidate minus the champion.")
    else:
        paragraphs.append(f"Not compared with a champion: {candidate_result.not_compared}.")
    return Section(
        title="Metrics",
        paragraphs=tuple(paragraphs),
        tables=(_table("", header, rows, numbers=range(1, len(header))),),
        figures=tuple(name for name in figures if name != "importance" and not name.startswith("slices_")),
    )


def _slices(sources: CardSources, figures: Mapping[str, bytes]) -> Section:
    result, metric = sources.evaluated.candidate_result.result, sources.inputs.solution.training.metric
    further = [name for name in result.metrics if name != metric][:_FURTHER_SLICE_METRICS]
    rows = [
        (
            f"{slice_result.column} = {slice_result.value}",
            f"{slice_result.rows:,}",
            format_value(slice_result.metrics[metric]),
            format_interval(slice_result.intervals.get(metric)).strip(),
            *(format_value(slice_result.metrics[name]) for name in further),
        )
        for slice_result in result.slices
    ]
    header = ["slice", "rows", metric, "95 % interval", *further]
    return Section(
        title="Slices",
        tables=(_table("", header, rows, numbers=range(1, len(header))),),
        figures=tuple(name for name in figures if name.startswith("slices_")),
    )


def _features(sources: CardSources, figures: Mapping[str, bytes]) -> Section:
    importances = sources.evaluated.importances
    importance = {feature.feature: feature.loss for feature in importances.features} if importances else {}
    inputs = sources.inputs
    origin = {name: f"{chosen.view.name} v{chosen.view.version}" for chosen in inputs.views for name in chosen.features}
    origin |= {name: f"derived: {expression}" for name, expression in inputs.derived.items()}
    ordered = sorted(sources.contract.features, key=lambda feature: -importance.get(feature.name, 0.0))
    rows = [
        (feature.name, origin.get(feature.name, "with the request"), _values(feature), _loss(importance.get(feature.name)))
        for feature in ordered
    ]
    paragraphs: tuple[str, ...] = ()
    if importances:
        paragraphs = (
            f"Importance is the {importances.metric} lost when a feature is shuffled among {importances.rows:,} rows of the hold-out. "
            "Of features that say the same, each may look unimportant.",
        )
    header = ["feature", "from", "values seen in training", "importance"]
    return Section(
        title="Features",
        paragraphs=paragraphs,
        tables=(_table(f"All {len(rows)} features, the most important first", header, rows, numbers=(3,), folded=True),),
        figures=tuple(name for name in figures if name == "importance"),
    )


def _limits(sources: CardSources) -> Section:
    solution, result = sources.inputs.solution, sources.evaluated.candidate_result.result
    points = [*solution.limitations]
    points.append(
        f"Evaluated on the {solution.training.holdout} of the hold-out alone: another season may be different."
        if solution.spine.has_time
        else "Evaluated on rows of the same table: what is collected at another time or place may be different."
    )
    points.append("Values outside those seen in training (see the features) are predicted without experience.")
    dropped = {column: count for column, count in result.dropped_slices.items() if count}
    if dropped:
        counts = ", ".join(f"{count} of {column}" for column, count in dropped.items())
        points.append(f"Values with fewer than {MINIMUM_SLICE_ROWS} rows in the hold-out were not evaluated as slices: {counts}.")
    return Section(title="Limits", points=tuple(points))


def _gates(sources: CardSources) -> Section:
    rows = [(str(check.check_name), "passed" if check.passed else "failed", str(check.description)) for check in sources.checks]
    paragraph = "A version that fails a gate is not deployed, and the champion stays."
    return Section(title="Gates", paragraphs=(paragraph,), tables=(_table("", ["gate", "result", "evidence"], rows, numbers=()),))


def _operation(sources: CardSources) -> Section:
    name, version = sources.inputs.name, sources.candidate.version
    paragraph = (
        "Deploy this version, go back to the one before, and see what was in production. Each change is a run with actor and reason."
        if rejection_reason(sources.checks) is None
        else "This version cannot be deployed. To go back from the version that predicts now to the one before it:"
    )
    promote = () if rejection_reason(sources.checks) else (f'mlops promote {name} --to {version} --reason "..."',)
    return Section(
        title="Deploy and roll back",
        paragraphs=(paragraph,),
        commands=(*promote, f'mlops rollback {name} --reason "..."', f"mlops history {name}"),
    )


def _described(sources: CardSources, column: str) -> str:
    description = sources.inputs.spine.column_descriptions.get(column)
    return f"{column}. {description.removeprefix('Label: ')}" if description else column


def _values(feature: "NumericFeature | CategoricalFeature") -> str:
    if feature.kind == "numeric":
        return "none" if feature.minimum is None else f"{format_value(feature.minimum)} to {format_value(feature.maximum)}"
    named = ", ".join(value or "(missing)" for value in feature.categories[:_NAMED_CATEGORIES])
    more = len(feature.categories) - _NAMED_CATEGORIES
    return f"{named} and {more:,} more" if more > 0 else named


def _loss(value: float | None) -> str:
    """In fixed notation: near zero a loss is noise, of whatever size."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}"


def _table(
    title: str, header: Sequence[str], rows: Sequence[tuple[str, ...]], *, numbers: Sequence[int], folded: bool = False
) -> Table:
    return Table(title=title, header=tuple(header), rows=tuple(rows), numbers=frozenset(numbers), folded=folded)
