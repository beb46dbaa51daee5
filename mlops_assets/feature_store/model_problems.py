"""Problems of dbt models: names that do not exist, and feature views whose description is wrong."""

from dataclasses import dataclass


class UnknownModelError(LookupError):
    """No dbt model of that name and version; `available` are the names that exist."""

    def __init__(self, message: str, available: list[str]):
        super().__init__(message)
        self.available = available


@dataclass(frozen=True)
class ModelProblem:
    """A fault of a dbt model: a file in the dbt project, the keys of the field there or the `line`, and what is allowed."""

    file: str
    model: str
    path: tuple[str | int, ...]
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.model, ".".join(map(str, self.path)), self.message)))


class FeatureViewError(ValueError):
    """Faults in the feature views that dbt models state."""

    def __init__(self, *problems: ModelProblem):
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
