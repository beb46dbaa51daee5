"""The label: which problem it poses, and the expression that makes it what the problem needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.features.generated.dbt_model import sql_word
from mlops_assets.lake.sql import literal, quote
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.origin import free_name
from mlops_assets.operations.new_solution.table_facts import TYPED, ColumnFacts, TableFacts
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.problem import PROBLEMS, Problem

_SHORT: dict[str, Problem] = {
    "binary": "binary_classification",
    "multiclass": "multiclass_classification",
    "classification": "multiclass_classification",
}
_FEW, _MOST_CLASSES = 10, 100
"""Whole numbers of so few different values are rather classes; more than `_MOST_CLASSES` classes nobody asks for."""

_FEWEST_ROWS = 10
"""Rows with a label of which a fifth can be held out."""

_POSITIVE = (
    *("yes", "y", "true", "t", "ja", "j", "oui", "si", "sí", "да", "positive", "pos", "positiv", "malignant", "m", "bad"),
    *("late", "churn", "churned", "fraud", "default", "fail", "failed", "defective", "spam", "sick", "ill", "verspätet", "died"),
)


@dataclass(frozen=True)
class Label:
    """The label `column` of a `problem`; `expression` computes it from a column of the table. `values` are those of a class with counts."""

    column: str
    problem: Problem
    of: str
    expression: str | None
    values: Sequence[tuple[str, int]]


def infer_label(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, column: str, answers: Answers
) -> tuple[Label, list[Decision]]:
    """The label in `column` of the typed rows. Raises StackError for one that cannot be predicted."""
    facts = table.columns[column]
    if facts.is_time:
        raise StackError(
            f"{column} holds {facts.type} values, which nothing predicts.", remedy="Compute a number or a class of it."
        )
    if facts.distinct < 2:
        value = "no value" if not facts.filled else f"the value {facts.least} alone"
        raise StackError(f"{column} has {value}: there is nothing to predict.", remedy="Name another column: --label")
    if facts.filled < _FEWEST_ROWS:
        problem = f"{column} is known in {facts.filled} rows, too few to train on some and to judge the model by others."
        raise StackError(problem, remedy=f"Bring {_FEWEST_ROWS} or more.")
    problem, decisions = _problem(column, facts, answers)
    values: Sequence[tuple[str, int]] = ()
    if problem != "regression":
        values = connection.execute(
            f"SELECT CAST({quote(column)} AS VARCHAR), count(*) FROM {TYPED} WHERE {quote(column)} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
    if (
        problem != "binary_classification"
        or facts.type == "boolean"
        or (facts.is_number and {"0", "1"} == {v for v, _ in values})
    ):
        return Label(column, problem, column, None, values), decisions
    positive, decision = _positive(column, values, answers)
    name = free_name(f"{column}_is_{positive}", table.columns)
    value = positive if facts.is_number else literal(positive)
    return Label(name, problem, column, f"{sql_word(column)} = {value}", values), [*decisions, decision]


def _problem(column: str, facts: ColumnFacts, answers: Answers) -> tuple[Problem, list[Decision]]:
    if answers.problem is not None:
        known: dict[str, Problem] = {**_SHORT, **dict(zip(PROBLEMS, PROBLEMS, strict=True))}
        if answers.problem not in known:
            remedy = f"Choose one: {nearest(answers.problem, list(PROBLEMS))}"
            raise StackError(f"There is no problem {answers.problem!r}.", remedy=remedy)
        problem = known[answers.problem]
        if problem == "regression" and not facts.is_number:
            raise StackError(f"{column} holds {facts.type} values, no numbers.", remedy="Choose a classification: --problem")
        if problem == "binary_classification" and facts.distinct != 2:
            raise StackError(f"{column} has {facts.distinct} different values, no two.", remedy="--problem multiclass")
        if problem == "multiclass_classification" and facts.type == "double":
            raise StackError(f"{column} has numbers with fractions, which are no classes.", remedy="--problem regression")
        return problem, [Decision(field="problem", value=problem, reason="Given.")]
    reason = f"{column} has {facts.distinct} different values."
    if facts.distinct == 2 and facts.type != "double":
        return "binary_classification", [Decision(field="problem", value="binary_classification", reason=reason)]
    if facts.type == "varchar":
        if facts.distinct > _MOST_CLASSES:
            raise StackError(
                f"{reason} These are too many classes.", remedy="Name another column: --label, or --problem multiclass"
            )
        return "multiclass_classification", [Decision(field="problem", value="multiclass_classification", reason=reason)]
    whole = facts.type != "double"
    if not whole or facts.distinct > 2 * _FEW:
        reason = f"{reason[:-1]}, numbers."
        return "regression", [Decision(field="problem", value="regression", reason=reason)]
    is_class = facts.distinct <= _FEW and facts.filled >= 5 * facts.distinct
    guess: Problem = "multiclass_classification" if is_class else "regression"
    decision = Decision(
        field="problem",
        value=guess,
        reason=f"{reason[:-1]}, whole numbers from {facts.least} to {facts.greatest}.",
        question="Are the numbers of the label classes, or amounts?",
        choices=("multiclass_classification", "regression"),
    )
    return guess, [decision]


def _positive(column: str, values: Sequence[tuple[str, int]], answers: Answers) -> tuple[str, Decision]:
    """The value of a binary label that counts as true."""
    known = [value for value, _ in values]
    if answers.positive is not None:
        if answers.positive not in known:
            raise StackError(f"{column} has no value {answers.positive!r}.", remedy=f"--positive {' or '.join(map(repr, known))}")
        return answers.positive, Decision(field="positive", value=answers.positive, reason="Given.")
    named = [value for value in known if value.strip().lower() in _POSITIVE]
    if len(named) == 1:
        return named[0], Decision(field="positive", value=named[0], reason=f"{column} is {' or '.join(known)}.")
    rarest = known[-1]
    decision = Decision(
        field="positive",
        value=rarest,
        reason="It is the rarer value.",
        question=f"Which value of {column} is the one to find, whose probability is predicted?",
        choices=tuple(known),
    )
    return rarest, decision
