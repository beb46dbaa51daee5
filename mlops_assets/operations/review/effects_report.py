"""The part of the report on a change that is about its data and its models, and the same in one line each."""

from collections.abc import Iterator

from mlops_assets.operations.review.effects import Effects
from mlops_assets.operations.review.model_review import MetricChange, ModelReview, format_metric
from mlops_assets.operations.review.plots import differences_plot
from mlops_assets.operations.review.table_diff import ColumnDiff, ColumnStatistics, TableDiff

_MOST_COLUMNS = 30


def render_effects(effects: Effects, folder: str) -> Iterator[str]:
    """Yield the lines of the sections on data and on models, those that were compared; the figures are in `folder`."""
    if effects.data is not None:
        yield from ["## Data", ""]
        yield "Built in a scratch lake beside production and compared with what production has of the last windows."
        yield ""
        for table in effects.data.tables:
            yield from _table(table)
        yield from (f"- not compared: {line}" for line in effects.data.not_compared)
        yield ""
    if effects.models:
        yield from ["## Models", ""]
        for model in effects.models:
            yield from _model(model, folder)


def draw_figures(effects: Effects) -> dict[str, bytes]:
    """Return the figures that the report shows, PNG images by file name."""
    return {f"{model.solution}.png": differences_plot(model.slices, model.metric) for model in effects.models if model.slices}


def describe_table(table: TableDiff) -> str:
    """Return one line about the rows of a table and the columns that differ."""
    if not table.differs:
        return f"{table.table}: {table.rows_after:,} rows, nothing differs"
    parts = [f"{table.rows_before:,} → {table.rows_after:,} rows"]
    if table.key:
        parts.append(f"+{table.added:,} -{table.removed:,} ~{table.changed:,}")
    parts += [f"{old} renamed {new}" for old, new in table.renamed]
    names = {name for pair in table.renamed for name in pair}
    differing = [column for column in table.columns if column.differs and column.name not in names]
    parts += [_short(column) for column in differing[:5]]
    return f"{table.table}: {', '.join(parts)}" + (f" and {len(differing) - 5} more columns" if len(differing) > 5 else "")


def describe_model(model: ModelReview) -> Iterator[str]:
    """Yield a line about the training of a solution, then one for each metric."""
    if model.obstacle:
        yield f"{model.solution}: not compared, {model.obstacle}"
        return
    yield f"{model.solution}: trained for {model.trained}, judged on {model.rows:,} rows up to {model.end}"
    if model.relabelled:
        yield f"  {model.relabelled:,} labels are others than before; both are judged by those of after"
    for change in model.metrics:
        yield f"  {change.name:<28}{format_metric(change.before)} → {format_metric(change.after)}  {_interval(change)}  {change.verdict}"


def _short(column: ColumnDiff) -> str:
    if column.before is None:
        return f"+ {column.name}"
    if column.after is None:
        return f"- {column.name}"
    if column.before.type != column.after.type:
        return f"{column.name} {column.before.type} → {column.after.type}"
    return f"{column.name} ~{column.changed:,}" if column.changed else column.name


def _table(table: TableDiff) -> Iterator[str]:
    yield f"### `{table.table}`"
    yield ""
    key = f"by `{', '.join(table.key)}`" if table.key else "without a key: rows are not told apart"
    yield f"{table.rows_before:,} → {table.rows_after:,} rows, {key}."
    if table.key:
        yield f"{table.added:,} came, {table.removed:,} went, {table.changed:,} have another value."
    yield from (f"`{old}` was renamed `{new}`: every value is the same." for old, new in table.renamed)
    yield ""
    differing = [column for column in table.columns if column.differs]
    if not differing:
        return
    yield "| column | changed | type | missing | distinct | mean | examples |"
    yield "|---|---|---|---|---|---|---|"
    for column in differing[:_MOST_COLUMNS]:
        sides = column.before, column.after
        changed = "" if column.changed is None else f"{column.changed:,}"
        kinds, missing, distinct, means = (
            _pair(*(None if side is None else value(side) for side in sides)) for value in (_type, _missing, _distinct, _mean)
        )
        examples = "<br>".join(_cell(text) for text in column.examples)
        yield f"| {column.name} | {changed} | {kinds} | {missing} | {distinct} | {means} | {examples} |"
    if len(differing) > _MOST_COLUMNS:
        yield ""
        yield f"And {len(differing) - _MOST_COLUMNS} more columns."
    yield ""


def _type(side: ColumnStatistics) -> str:
    return side.type


def _missing(side: ColumnStatistics) -> str:
    return "" if side.null_share is None else f"{side.null_share:.1%}"


def _distinct(side: ColumnStatistics) -> str:
    return f"{side.distinct:,}"


def _mean(side: ColumnStatistics) -> str:
    return "" if side.mean is None else f"{side.mean:.6g}"


def _pair(before: str | None, after: str | None) -> str:
    if before == after:
        return before or ""
    return f"{'none' if before is None else before} → {'none' if after is None else after}"


def _model(model: ModelReview, folder: str) -> Iterator[str]:
    yield f"### `{model.solution}`"
    yield ""
    if model.obstacle:
        yield f"Not compared: {model.obstacle}."
        yield ""
        return
    yield (
        f"Both configurations were fitted on what was known on {model.trained} ({model.training_rows[0]:,} rows before, "
        f"{model.training_rows[1]:,} after), without a search, and judged on {model.rows:,} rows from then to {model.end}."
    )
    if model.relabelled:
        yield f"{model.relabelled:,} of these have another label than before. Both are judged by the labels of after, which no gate does."
    yield ""
    yield from _metrics(model.metrics, "before")
    if model.champion:
        yield f"The champion, {model.champion_label}, beside the changed configuration on the same rows:"
        yield ""
        yield from _metrics(model.champion, "champion")
    elif model.champion_obstacle:
        yield f"The champion was not compared: {model.champion_obstacle}."
        yield ""
    yield f"| slice | | rows | {model.metric} before | after | difference, 95% interval | |"
    yield "|---|---|---|---|---|---|---|"
    for part in model.slices:
        change = part.metric
        yield (
            f"| {part.column} | {_cell(part.value)} | {part.rows:,} | {format_metric(change.before)} | {format_metric(change.after)} | "
            f"{_interval(change)} | {change.verdict} |"
        )
    yield ""
    yield f"![{model.solution}: {model.metric} by slice]({folder}/{model.solution}.png)"
    yield ""


def _metrics(metrics: tuple[MetricChange, ...], first: str) -> Iterator[str]:
    yield f"| metric | {first} | after | difference, 95% interval | |"
    yield "|---|---|---|---|---|"
    for change in metrics:
        yield f"| {change.name} | {format_metric(change.before)} | {format_metric(change.after)} | {_interval(change)} | {change.verdict} |"
    yield ""


def _interval(change: MetricChange) -> str:
    return "" if change.low is None or change.high is None else f"{change.low:+.4f} to {change.high:+.4f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
