"""A fitted pipeline as a skops file: stored without pickle, loaded with the types of a list and no others.

For models that ONNX cannot express. Whoever loads one needs scikit-learn and pandas, which skops and the first prediction import.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.schema.problem import Problem


@dataclass(frozen=True)
class SkopsModel:
    """A loaded pipeline that reads what an ONNX model reads, and answers as one does: float32 probabilities or values."""

    pipeline: Any
    schema: FeatureSchema
    problem: Problem

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Probabilities [rows, classes] or values [rows, 1] of a float32 matrix and an object matrix of strings."""
        import pandas as pd

        numbers = pd.DataFrame(numeric, columns=list(self.schema.numeric))
        texts = pd.DataFrame(categorical, columns=list(self.schema.categorical), dtype=object, index=numbers.index)
        frame = pd.concat([numbers, texts], axis=1)
        answers = self.pipeline.predict(frame) if self.problem == "regression" else self.pipeline.predict_proba(frame)
        return np.asarray(answers, dtype=np.float32).reshape(len(frame), -1)


def dump_pipeline(pipeline: Any) -> bytes:
    """The content of a skops file of the fitted `pipeline`."""
    from skops import io

    return io.dumps(pipeline)


def load_skops(content: bytes, trusted: Sequence[str], schema: FeatureSchema, problem: Problem) -> SkopsModel:
    """The model in the skops file `content`. Raises ValueError when it holds a type that is neither skops' own nor in `trusted`."""
    from skops import io

    if unknown := sorted(set(io.get_untrusted_types(data=content)) - set(trusted)):
        raise ValueError(f"it holds types that its contract does not name: {', '.join(unknown)}")
    return SkopsModel(io.loads(content, trusted=list(trusted)), schema, problem)
