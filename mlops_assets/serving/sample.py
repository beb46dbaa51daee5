"""The parity sample of a bundle: rows of the hold-out with what the fitted model answered, the content of `sample.json`.

Whoever loads the bundle lets it answer the same rows, so that a runtime or a processor that computes something else never serves. Their
requests are the examples of the API's description.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.ml.matrix import MISSING_CATEGORY, FeatureSchema

RequestValue = bool | int | float | str | None


class SampleRow(BaseModel):
    """One row: what a caller would send, the feature values in the contract's order, and the answer of the fitted model.

    `answer` holds the probability of each class, or the value of a regression. A missing value is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: dict[str, RequestValue]
    features: tuple[float | str | None, ...]
    answer: tuple[float, ...] = Field(min_length=1)


class Sample(BaseModel):
    """Rows with their answers, and how far another runtime may be from them: relative to answers over 1, otherwise absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    maximum_difference: float = Field(ge=0)
    rows: tuple[SampleRow, ...] = Field(min_length=1)

    def to_bytes(self) -> bytes:
        """The file's content."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def matrices(self, schema: FeatureSchema) -> tuple[np.ndarray, np.ndarray]:
        """The features as the model reads them: float32 [rows, numeric], and objects [rows, categorical]."""
        count = len(schema.numeric)
        numeric = np.array([row.features[:count] for row in self.rows], dtype=np.float64)
        texts = [[MISSING_CATEGORY if value is None else value for value in row.features[count:]] for row in self.rows]
        return schema.from_origin(numeric.reshape(len(self.rows), -1)), np.array(texts, dtype=object).reshape(len(self.rows), -1)

    def difference(self, answers: np.ndarray) -> float:
        """The largest difference of `answers` [rows, classes or 1] from those of the fitted model; infinite where one is NaN."""
        expected = np.array([row.answer for row in self.rows], dtype=np.float64)
        if answers.shape != expected.shape:
            return float("inf")
        relative = np.abs(answers - expected) / np.maximum(1.0, np.abs(expected))
        return float(np.nan_to_num(relative, nan=np.inf).max())
