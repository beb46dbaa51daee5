"""The types that skops may load from a registered pipeline."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


_TRUSTED_MODULES = (
    "sklearn.",
    "numpy.",
    "scipy.",
    "lightgbm.",
    "xgboost.",
    "collections.OrderedDict",
    "mlops_assets.ml.estimators.",
)


class RegistryError(Exception):
    """The registry does not hold what was asked for, or must not take it; the message says what to do."""


def trusted_types(pipeline: "Pipeline") -> list[str]:
    """The types in `pipeline` that skops does not know and may load all the same.

    They are those of the libraries of models, of the steps, which the YAML file names, and what a step declares as `trusted_types`. Raises
    RegistryError for any other.
    """
    from skops import io

    from mlops_assets.ml.pipeline import fitted_steps

    types = io.get_untrusted_types(data=io.dumps(pipeline))
    of_steps: set[str] = set()
    for step in fitted_steps(pipeline):
        of_steps |= {f"{type(step).__module__}.{type(step).__qualname__}", *getattr(step, "trusted_types", ())}
    return _require_trusted(types, of_steps)


def trusted_for(content: bytes, step_classes: Iterable[str]) -> list[str]:
    """The types in the skops file `content` that may be loaded for a solution whose steps have these classes; nothing is loaded to tell.

    Raises RegistryError for any other.
    """
    from skops import io

    from mlops_assets.ml.pipeline_steps import import_class

    of_steps: set[str] = set()
    for kind in map(import_class, step_classes):
        of_steps |= {f"{kind.__module__}.{kind.__qualname__}", *getattr(kind, "trusted_types", ())}
    return _require_trusted(io.get_untrusted_types(data=content), of_steps)


def _require_trusted(types: list[str], of_steps: set[str]) -> list[str]:
    if unknown := [name for name in types if name not in of_steps and not name.startswith(_TRUSTED_MODULES)]:
        raise RegistryError(
            f"The pipeline holds types that are not trusted for loading: {', '.join(unknown)}. Name those of your own in "
            "`trusted_types` of the class of the step."
        )
    return types
