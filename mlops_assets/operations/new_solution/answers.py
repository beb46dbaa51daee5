"""Answers that a person gave by options or on the terminal, and the decisions that were inferred from them and from the rows."""

from dataclasses import dataclass, replace
from typing import Any

from mlops_assets.core.errors import StackError

NONE = "none"
"""The answer that there is no such column."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a person said; None or empty where the rows decide. Each field is the option of `mlops new` of the same name."""

    label: str
    time: str | None = None
    key: tuple[str, ...] = ()
    known_at: str | None = None
    label_delay: str | None = None
    problem: str | None = None
    positive: str | None = None
    time_zone: str | None = None
    cadence: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    skip: int | None = None
    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    date_format: str | None = None
    names: tuple[str, ...] = ()
    null: tuple[str, ...] = ()
    feature: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    owner: str = "team:data"
    description: str | None = None

    def answered(self, field: str, text: str) -> "Answers":
        """These answers with one more, as it was typed. Several columns are parted by commas."""
        value: Any = text
        if isinstance(getattr(self, field), tuple):
            value = tuple(part.strip() for part in text.split(",") if part.strip())
        return replace(self, **{field: value})


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thing that was decided: the `field` of `Answers` that decides it otherwise, its value and the reason.

    `question` is what a person is asked where the rows leave it open, with the possible `choices`; the value is then the best guess.
    """

    field: str
    value: str
    reason: str
    question: str = ""
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The option of the command, with its value."""
        shown = self.value if self.value and self.value.replace("_", "").isalnum() else f"'{self.value}'"
        return f"{option_name(self.field)} {shown}"


def option_name(field: str) -> str:
    """The option of `mlops new` for a field of `Answers`."""
    return f"--{field.replace('_', '-')}"


def open_questions(decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    """The decisions that a person has to confirm."""
    return tuple(decision for decision in decisions if decision.question)


def refuse_open(decisions: tuple[Decision, ...]) -> None:
    """Raise StackError, with the options that decide them, for decisions that nobody confirmed."""
    if questions := open_questions(decisions):
        lines = [f"  {question.option}  ({question.question} {question.reason})" for question in questions]
        raise StackError(
            "The rows leave open, and there is no terminal to ask:\n" + "\n".join(lines),
            remedy="Give these options, with the values that are right, or --yes to take those above.",
        )
