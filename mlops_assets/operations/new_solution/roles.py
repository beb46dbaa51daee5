"""The role of each column: key, time, label, feature, or left out with the reason."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.lake.sql import quote
from mlops_assets.operations.new_solution.answers import NONE, Answers, Decision
from mlops_assets.operations.new_solution.key import looks_like_key
from mlops_assets.operations.new_solution.label import Label
from mlops_assets.operations.new_solution.table_facts import TYPED, ColumnFacts, TableFacts
from mlops_assets.schema.column_names import internal
from mlops_assets.schema.gates_section import DatasetChecks
from mlops_assets.training.leakage import explained_labels

RoleName = Literal["key", "time", "known at", "label", "partition", "feature", "left out"]

_MOST_CATEGORIES = 1_000
_NEARLY_ALL = 0.5
_FEW_CATEGORIES = 50
_TELLS = 0.999
"""From this correlation ratio on a column is the label in other words."""

_MOST_FEATURES = 30
"""Features that are compared with the label in one query, whose planning takes longer than its work."""

_FEWEST_UNKNOWN = 5
"""Rows without a label from which on it is no accident that a column is empty in all of them."""


@dataclass(frozen=True)
class Role:
    """What a column is for, and why."""

    name: RoleName
    reason: str


def infer_roles(
    connection: duckdb.DuckDBPyConnection,
    table: TableFacts,
    label: Label,
    fixed: Mapping[str, Role],
    nested: Collection[str],
    later: Mapping[str, str],
    answers: Answers,
) -> tuple[dict[str, Role], tuple[Decision, ...]]:
    """The role of each column. `fixed` are those with another role than feature, `nested` those that hold lists or objects.

    `later` are columns of which something else than the rows tells, with the reason, that they are known only after the prediction.
    """
    for name in (*answers.feature, *answers.leave_out):
        if name in fixed:
            raise StackError(f"{name} is the {fixed[name].name}, no feature.", remedy="Leave it out of the options.")
    roles = dict(fixed)
    rest = [name for name in table.columns if name not in fixed]
    for name in rest:
        if reason := later.get(name) or _unusable(connection, name, table, nested):
            if name in answers.feature and table.columns[name].filled and not table.columns[name].is_time:
                continue
            roles[name] = Role("left out", reason)
        elif name in answers.leave_out:
            roles[name] = Role("left out", "Given.")
    rest = [name for name in rest if name not in roles]
    with_label = _known_with_label(connection, table, label, [name for name in rest if name not in answers.feature])
    roles |= {
        name: Role("left out", f"It is empty in every row without {label.of}: it is known only with it.") for name in with_label
    }
    rest = [name for name in rest if name not in roles]
    telling, decision = _leaks(connection, table, label, rest, answers)
    roles |= telling
    roles |= {name: Role("feature", _describe(table.columns[name], table.rows)) for name in rest if name not in telling}
    if not any(role.name == "feature" for role in roles.values()):
        raise StackError("No column is left that a model could read.", remedy="Name columns that it may: --feature NAME")
    return {name: roles[name] for name in table.columns}, decision


def _unusable(connection: duckdb.DuckDBPyConnection, name: str, table: TableFacts, nested: Collection[str]) -> str | None:
    """Why a column is no feature whatever the label is; None where it can be one."""
    facts = table.columns[name]
    if not facts.filled:
        return "It has no value."
    if facts.distinct == 1:
        return f"Its only value is {facts.least!r}."
    if name in nested:
        return "It holds lists or objects; compute a number or a text of them in an expression."
    if facts.is_time:
        return "A model reads no times; compute an hour or a difference in `derived`."
    is_unique = facts.distinct == facts.filled and facts.filled > _FEW_CATEGORIES
    most = max(_FEW_CATEGORIES, min(_MOST_CATEGORIES, _NEARLY_ALL * facts.filled))
    if facts.type == "varchar" and facts.distinct > most:
        return f"{facts.distinct:,} different texts in {facts.filled:,} rows: too many to learn from."
    if is_unique and facts.type in ("integer", "bigint"):
        if looks_like_key(name):
            return "A number that names the row."
        if _counts_rows(connection, name):
            return "It counts the rows."
    return None


def _counts_rows(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    column = quote(name)
    [(is_count,)] = connection.execute(
        f"SELECT bool_and({column} = before + 1) FROM (SELECT {column}, lag({column}) OVER () AS before FROM {TYPED}) "
        "WHERE before IS NOT NULL"
    ).fetchall()
    return bool(is_count)


def _known_with_label(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, label: Label, names: Collection[str]
) -> list[str]:
    """The columns that are empty in each of the rows without a label, and have values in most of the others."""
    unknown = table.rows - table.columns[label.of].filled
    asked = [name for name in names if table.columns[name].filled < table.rows]
    if unknown < _FEWEST_UNKNOWN or not asked:
        return []
    missing = f"{quote(label.of)} IS NULL"
    counts = ", ".join(f"count({quote(name)}) FILTER ({missing})" for name in asked)
    [row] = connection.execute(f"SELECT {counts} FROM {TYPED}").fetchall()
    most = (table.rows - unknown) / 2
    return [name for name, filled in zip(asked, row, strict=True) if filled == 0 and table.columns[name].filled > most]


def _leaks(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, label: Label, names: Collection[str], answers: Answers
) -> tuple[dict[str, Role], tuple[Decision, ...]]:
    """The columns that give the label away by themselves, by the measure of the check `leakage_guard`."""
    row, target = internal("row_number"), internal("target")
    # Twins of the label leave nothing to predict it with; the check of a training decides by the same limit.
    limit = DatasetChecks().maximum_label_correlation
    listed, ratios = list(names), dict[str, float]()
    for begin in range(0, len(listed), _MOST_FEATURES):
        part = listed[begin : begin + _MOST_FEATURES]
        ratios |= explained_labels(
            connection,
            rows=f"(SELECT *, row_number() OVER () AS {row}, {label.expression or quote(label.of)} AS {target} FROM {TYPED})",
            key=row,
            label=target,
            features={name: table.columns[name].is_number or table.columns[name].type == "boolean" for name in part},
            regression=label.problem == "regression",
        )
    strong = {name: ratio for name, ratio in ratios.items() if ratio > limit and name not in answers.feature}
    if answers.leave_out == (NONE,):
        strong = {name: ratio for name, ratio in strong.items() if ratio >= _TELLS}
    roles = {
        name: Role("left out", f"It tells {label.of} by itself: correlation ratio {ratio:.3f}.") for name, ratio in strong.items()
    }
    doubtful = [name for name, ratio in strong.items() if ratio < _TELLS and name not in answers.leave_out]
    if not doubtful:
        return roles, ()
    decision = Decision(
        field="leave_out",
        value=",".join(doubtful),
        reason=f"They tell {label.of} nearly by themselves.",
        question="Which columns are known only with the label? (none: all are known before)",
    )
    return roles, (decision,)


def _describe(facts: ColumnFacts, rows: int) -> str:
    missing = f", {(rows - facts.filled) / rows:.1%} missing" if facts.filled < rows else ""
    if facts.type == "varchar":
        return f"{facts.distinct:,} categories{missing}."
    if facts.type == "boolean":
        return f"true or false{missing}."
    return f"from {facts.least} to {facts.greatest}{missing}."
