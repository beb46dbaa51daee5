"""The three problem types of the platform, and the labels of each as an array."""

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Problem = Literal["binary_classification", "multiclass_classification", "regression"]
PROBLEMS: tuple[Problem, ...] = get_args(Problem)


def check_problem(problem: str) -> None:
    """Raise ValueError when `problem` is not one of `PROBLEMS`."""
    if problem not in PROBLEMS:
        raise ValueError(f"Unknown problem {problem!r}: use {', '.join(PROBLEMS)}.")


def label_array(column: "pa.ChunkedArray | pa.Array", problem: Problem) -> "np.ndarray":
    """The labels of `column` as scikit-learn reads them.

    Binary labels become int64 0 and 1 (booleans or integers are taken), classes become int64 or strings, values float64.
    Raises ValueError on a null, on a type that does not suit the problem, and on binary labels other than 0 and 1.
    """
    import numpy as np
    import pyarrow as pa

    check_problem(problem)
    if column.null_count:
        raise ValueError(f"{column.null_count} labels are null: keep only rows whose label is known.")
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    discrete = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if problem == "regression":
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
            raise ValueError(f"A regression label is a number, not {kind}.")
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if discrete:
        values = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    elif problem == "multiclass_classification" and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column.to_numpy(zero_copy_only=False).astype(object)
    else:
        raise ValueError(f"A label of {problem} is {_expected(problem)}, not {kind}.")
    if problem == "binary_classification" and not np.isin(values, (0, 1)).all():
        raise ValueError(f"A binary label is 0 or 1; found {np.unique(values)[:5].tolist()}. Compute it as a boolean.")
    return values


def _expected(problem: Problem) -> str:
    return "a boolean or 0 and 1" if problem == "binary_classification" else "an integer or a string"
