"""Changes of the relation between features and label for `mlops replay --policy --inject`: labels of some rows follow another rule."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mlops_assets.core.errors import StackError
from mlops_assets.schema.solution import Solution

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.changed_relation import ChangeKind


@dataclass(frozen=True)
class RelationChange:
    """A change of the relation in the rows whose `column` is `value`, on the days from `first` to `last`."""

    kind: "ChangeKind"
    column: str
    value: str
    first: date
    last: date

    @classmethod
    def read(cls, text: str) -> "RelationChange":
        """Return `gradual:carrier=EV:2013-08-19:2013-12-31` as a change. Raises StackError when it is none."""
        from mlops_assets.ml.changed_relation import CHANGE_KINDS

        try:
            kind, chosen, first, last = text.split(":")
            column, value = chosen.split("=", 1)
            days = date.fromisoformat(first), date.fromisoformat(last)
        except ValueError as error:
            raise StackError(
                f"{text!r} is no change of a relation: {error}.",
                remedy="Write --inject kind:column=value:first:last, such as gradual:carrier=EV:2013-08-19:2013-12-31",
            ) from error
        known = [name for name in CHANGE_KINDS if name == kind]
        if not known:
            raise StackError(f"There is no change {kind!r} of a relation.", remedy=f"Choose one of: {', '.join(CHANGE_KINDS)}")
        if days[1] < days[0]:
            raise StackError(f"The change ends on {last}, before it begins on {first}.", remedy="Swap the days.")
        return cls(known[0], column, value, *days)

    def apply(self, solution: Solution, rows: "pa.Table") -> "pa.Table":
        """Return the labelled `rows` with the changed labels. Raises StackError when there is no such column or no such row."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from mlops_assets.ml.changed_relation import change_labels, changed_share

        label, day = solution.spine.label, solution.partitions.column
        if self.column not in rows.column_names or self.column == label:
            raise StackError(
                f"{solution.name} has no feature {self.column}.", remedy=f"Choose of: {', '.join(rows.column_names)}"
            )
        chosen = pc.equal(rows.column(self.column).cast(pa.string()), self.value).fill_null(False).to_numpy()
        if not chosen.any():
            raise StackError(f"{self.column} is never {self.value}.", remedy="Choose a value that it has.")
        ages = (rows.column(day).to_numpy().astype("datetime64[D]") - np.datetime64(self.first)).astype(int)
        shares = changed_share(self.kind, ages, (self.last - self.first).days + 1) * chosen
        labels = rows.column(label).to_numpy()
        if solution.problem == "regression":
            changed = change_labels(solution.problem, labels.astype(float), shares)
        else:
            classes, places = np.unique(labels, return_inverse=True)
            changed = classes[change_labels(solution.problem, places, shares, classes=len(classes))]
        field = rows.schema.field(label)
        return rows.set_column(rows.column_names.index(label), field, pa.array(changed).cast(field.type, safe=False))
