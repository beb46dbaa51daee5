"""The contract of a promoted model: what it was trained on, what it reads and what it answers.

Strict models: an unknown or a wrong field is an error. Files and scoring belong to `serving/bundle.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlops_assets.ml.matrix import FeatureSchema, categorical_matrix, exact_matrix
from mlops_assets.ml.recalibration_methods import METHODS, Method, Recalibration
from mlops_assets.schema.problem import Problem
from mlops_assets.serving.columns import check_column

ModelFormat = Literal["onnx", "skops"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NumericFeature(_Strict):
    """A numeric feature with the range seen in training; None when every training value was missing."""

    name: str
    kind: Literal["numeric"] = "numeric"
    type: str
    minimum: float | None
    maximum: float | None


class CategoricalFeature(_Strict):
    """A categorical feature with the values seen in training, sorted; the empty string stands for a missing value."""

    name: str
    kind: Literal["categorical"] = "categorical"
    type: str
    categories: tuple[str, ...]


class FeatureView(_Strict):
    """A feature view that the model reads, with the version it was trained on.

    `features` are those that the model uses; `online` tells whether the online store has them, or the caller must supply them.
    """

    name: str
    version: int = Field(ge=1)
    entity: tuple[str, ...]
    features: tuple[str, ...]
    online: bool


class RequestColumn(_Strict):
    """A column of the spine that the caller of the model supplies, with its SQL type."""

    name: str
    type: str


class DerivedFeature(_Strict):
    """A feature computed from the request columns: a SQL expression in DuckDB's dialect."""

    name: str
    expression: str


class Segment(_Strict):
    """The rows that a model was made for: those with `value` (an integer as text) in the request column or entity key `column`."""

    column: str
    value: str

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether `row`, which maps column to value, is in the segment."""
        value = row.get(self.column)
        return value is not None and str(value) == self.value


class BaseVersion(_Strict):
    """The version that a recalibrated one is made of, and the method and the parameters by which its answers are recalibrated."""

    version: int = Field(ge=1)
    method: Method
    parameters: dict[str, float | tuple[float, ...]]

    @property
    def recalibration(self) -> Recalibration:
        """The function from the answers of the model to those of the recalibrated version."""
        return Recalibration(self.method, self.parameters)


class Contract(_Strict):
    """The inputs and the outputs of a model: the content of `contract.json`.

    `features` are in the model's order, numeric before categorical. `classes` are in the order of the probabilities, and
    `decision_threshold` is the score from which a binary prediction is positive; both are empty for a regression. `key` identifies
    a row of the spine, `entity_keys` what the feature views are looked up with, `request_columns` are features themselves. The dates
    of `partition_column` are those of `time_zone`. `segment` is None for a model of all rows. The model reads a numeric feature as float32;
    one of `origins` as float32 of the value minus that number, both float64.

    The model is an ONNX file, or, where it has no such form (`no_onnx` is the reason), a skops file with the types `trusted_types`.

    With `recalibration` the model file is that of another version, unchanged, and its answers are recalibrated before anything reads them.
    A threshold of 0.5, the default, stays one of the recalibrated probability. Another one was chosen on the scores of the other version: it
    is recalibrated as they are, so that the labels stay what they were but where recalibrated scores are equal.
    """

    name: str = Field(min_length=1)
    version: int = Field(ge=1)
    problem: Problem
    features: tuple[NumericFeature | CategoricalFeature, ...] = Field(min_length=1)
    key: RequestColumn
    entity_keys: tuple[RequestColumn, ...]
    prediction_time_column: str
    partition_column: str
    time_zone: str
    classes: tuple[int | str, ...]
    decision_threshold: float | None = Field(ge=0, le=1)
    dataset_fingerprint: str
    feature_views: tuple[FeatureView, ...]
    request_columns: tuple[RequestColumn, ...] = ()
    derived_features: tuple[DerivedFeature, ...] = ()
    segment: Segment | None = None
    origins: dict[str, float] = Field(default_factory=dict)
    model_format: ModelFormat = "onnx"
    no_onnx: str | None = None
    trusted_types: tuple[str, ...] = ()
    recalibration: BaseVersion | None = None
    model_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    sample_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    run_id: str

    @model_validator(mode="after")
    def _consistent(self) -> "Contract":
        kinds = [feature.kind for feature in self.features]
        if kinds != sorted(kinds, key=("numeric", "categorical").index):
            raise ValueError("features must list the numeric ones before the categorical ones")
        if len({feature.name for feature in self.features}) != len(self.features):
            raise ValueError("features must have different names")
        supplied = {column.name for column in self.request_columns} | {feature.name for feature in self.derived_features}
        supplied |= {name for view in self.feature_views for name in view.features}
        if unknown := sorted(supplied - {feature.name for feature in self.features}):
            raise ValueError(
                f"what request_columns, derived_features and feature_views give must be features: {', '.join(unknown)}"
            )
        if (self.no_onnx is None) != (self.model_format == "onnx") or (self.trusted_types and self.model_format == "onnx"):
            raise ValueError("no_onnx and trusted_types belong to the format skops")
        if unknown := sorted(set(self.origins) - set(self.feature_schema.numeric)):
            raise ValueError(f"origins must be those of numeric features: {', '.join(unknown)}")
        if self.recalibration is not None and self.recalibration.method not in METHODS[self.problem]:
            raise ValueError(f"{self.recalibration.method} does not recalibrate a {self.problem}")
        for column in (self.key, *self.entity_keys, *self.request_columns):
            check_column(column.name, column.type)
        expected = {"binary_classification": (2, 2), "multiclass_classification": (3, None), "regression": (0, 0)}
        least, most = expected[self.problem]
        if len(self.classes) < least or (most is not None and len(self.classes) > most):
            raise ValueError(f"{self.problem} cannot have {len(self.classes)} classes")
        if (self.decision_threshold is None) == (self.problem == "binary_classification"):
            raise ValueError("decision_threshold belongs to binary_classification, which requires it, and to nothing else")
        return self

    @property
    def model_file(self) -> str:
        """The name of the file of the model."""
        return f"model.{self.model_format}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the spine that a row must give besides its key: entity keys and request columns, each once."""
        return tuple(dict.fromkeys(column.name for column in (*self.entity_keys, *self.request_columns)))

    @property
    def feature_schema(self) -> FeatureSchema:
        """The features as the matrix functions take them."""
        return FeatureSchema(
            numeric=tuple(feature.name for feature in self.features if feature.kind == "numeric"),
            categorical=tuple(feature.name for feature in self.features if feature.kind == "categorical"),
            origins=self.origins,
        )


def describe_features(table: pa.Table, schema: FeatureSchema) -> tuple[NumericFeature | CategoricalFeature, ...]:
    """The features of `schema` with their Arrow types and the values that the training `table` holds."""
    described: list[NumericFeature | CategoricalFeature] = []
    for name in schema.numeric:
        values = exact_matrix(table, [name])[:, 0]
        finite = values[np.isfinite(values)]
        described.append(
            NumericFeature(
                name=name,
                type=str(table.schema.field(name).type),
                minimum=float(finite.min()) if len(finite) else None,
                maximum=float(finite.max()) if len(finite) else None,
            )
        )
    for name in schema.categorical:
        categories = tuple(sorted(set(categorical_matrix(table, [name])[:, 0])))
        described.append(CategoricalFeature(name=name, type=str(table.schema.field(name).type), categories=categories))
    return tuple(described)
