"""The scorer of validated rows: it looks features up, derives, overrides, and lets the model answer. The same under every channel.

Nothing is logged or sent here: that belongs to the channels.
"""

from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from math import isfinite, nan
from typing import Any

import msgspec
import numpy as np

from mlops_assets.ml.matrix import MISSING_CATEGORY
from mlops_assets.online_store.store import FeatureRequest, OnlineRow, OnlineStore
from mlops_assets.online_store.values import Flag, ViewValues
from mlops_assets.serving.bundle import Bundle
from mlops_assets.serving.derived import DerivedFeatures
from mlops_assets.serving.prediction_record import (
    Channel,
    Outputs,
    PredictionRecord,
    Role,
    Value,
    build_prediction_id,
)
from mlops_assets.serving.requests import RequestError, Row


class ScoredRow(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the model for one row and its inputs: the part of a `PredictionRecord` that the model decides.

    `features` are all features of the model in its order, after overrides; `entity` are the entity keys.
    """

    key: str | int
    partition: date
    prediction_time: datetime
    model_version: int
    entity: dict[str, Value]
    features: dict[str, Value]
    outputs: Outputs
    views: dict[str, ViewValues]
    classes: Sequence[int | str] = ()
    unseen: Sequence[str] = ()

    def record(
        self, *, solution: str, channel: Channel, role: Role, answered: bool, request_id: str, caller: str | None
    ) -> PredictionRecord:
        """The prediction as it is logged, served now."""
        return PredictionRecord(
            prediction_id=build_prediction_id(solution=solution, channel=channel, request_id=request_id, role=role),
            solution=solution,
            channel=channel,
            role=role,
            answered=answered,
            served_at=datetime.now(UTC),
            key=self.key,
            partition=self.partition,
            prediction_time=self.prediction_time,
            model_version=self.model_version,
            entity=self.entity,
            features=self.features,
            outputs=self.outputs,
            views=self.views,
            classes=self.classes,
            unseen=self.unseen,
            caller=caller,
        )


class PreparedRows(msgspec.Struct, frozen=True):
    """Rows with all that the model reads of them."""

    rows: Sequence[Row]
    online_rows: Sequence[OnlineRow]
    features: Sequence[dict[str, Any]]
    numeric: np.ndarray
    categorical: np.ndarray


class Scorer:
    """Scores the rows of one bundle with one online store. Safe to call from several threads; each process makes its own."""

    def __init__(self, bundle: Bundle, online_store: OnlineStore):
        contract = bundle.contract
        self.bundle = bundle
        self._schema = contract.feature_schema
        # Not None, which is a value: what nothing has filled cannot become a number or a text for the model.
        self._unfilled: dict[str, Any] = dict.fromkeys(self._schema.names, msgspec.UNSET)
        self._entity_keys = tuple(column.name for column in contract.entity_keys)
        supplied = {column.name for column in (*contract.entity_keys, *contract.request_columns)}
        self._columns = tuple(name for name in self._schema.names if name in supplied)
        self._online = tuple(view for view in contract.feature_views if view.online)
        self._supplied = {view.name: ViewValues(version=view.version, flag=Flag.REQUEST) for view in contract.feature_views}
        self._view_features = {view.name: frozenset(view.features) for view in contract.feature_views}
        self._reader = online_store.reader(tuple(FeatureRequest(view.name, view.version, view.features) for view in self._online))
        self._derived = DerivedFeatures(contract)
        self._classes = tuple(contract.classes or ()) if contract.problem == "multiclass_classification" else ()
        self._known = tuple(
            (feature.name, frozenset(feature.categories)) for feature in contract.features if feature.kind == "categorical"
        )

    def score(self, rows: Sequence[Row]) -> list[ScoredRow]:
        """Answers for `rows`, in their order. A feature that is unknown counts as missing, which the flag of its view tells.

        Raises RequestError for the first row to which the model gives no finite answer, and UnknownOnlineViewError when the online
        store lacks a view.
        """
        if not rows:
            return []
        prepared = self.prepare(rows)
        return self.complete(prepared, self.bundle.predict(prepared.numeric, prepared.categorical))

    def prepare(self, rows: Sequence[Row]) -> PreparedRows:
        """Look the features of `rows` up, derive and override. Raises UnknownOnlineViewError as `score` does."""
        online_rows = self._look_up(rows)
        derived = self._derived.evaluate([row.columns for row in rows])
        features = [self._features(row, read, computed) for row, read, computed in zip(rows, online_rows, derived, strict=True)]
        return PreparedRows(rows, online_rows, features, *self._matrices(features))

    def complete(self, prepared: PreparedRows, answers: np.ndarray) -> list[ScoredRow]:
        """Return the scored rows with the `answers` of the model. Raises RequestError as `score` does."""
        rows, online_rows, features, outputs = prepared.rows, prepared.online_rows, prepared.features, self._outputs(answers)
        return [
            ScoredRow(
                key=row.key,
                partition=row.partition,
                prediction_time=row.prediction_time,
                model_version=self.bundle.contract.version,
                entity={name: row.columns[name] for name in self._entity_keys},
                features=values,
                outputs=output,
                views=self._views(row, read.views) if row.features else read.views,
                classes=self._classes,
                unseen=[name for name, known in self._known if (text := values[name]) is not None and text not in known],
            )
            for row, read, values, output in zip(rows, online_rows, features, outputs, strict=True)
        ]

    def _look_up(self, rows: Sequence[Row]) -> list[OnlineRow]:
        if not self._online:
            return [OnlineRow({}, {}) for _ in rows]
        return self._reader.read([row.columns for row in rows], [row.prediction_time for row in rows])

    def _features(self, row: Row, read: OnlineRow, computed: Mapping[str, Value]) -> dict[str, Value]:
        """All features of the model in its order."""
        features = self._unfilled.copy()
        for name in self._columns:
            features[name] = row.columns[name]
        features.update(computed)
        features.update(read.values)
        features.update(row.features)
        return features

    def _matrices(self, features: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrices of the model from rows of features, which are in the order of the schema: numbers, then texts."""
        numbers = len(self._schema.numeric)
        # A value of the store beyond float32 is infinite, as in the lake's batches: NumPy would warn of it, and not doing so costs
        # three times what the conversion does.
        flat = array(
            "d" if self._schema.origins else "f",
            [nan if number is None else number for row in features for number in islice(row.values(), numbers)],
        )
        numeric = np.frombuffer(flat, dtype=flat.typecode).reshape(len(features), numbers)
        if self._schema.origins:
            numeric = self._schema.from_origin(numeric)
        texts = [[MISSING_CATEGORY if text is None else text for text in islice(row.values(), numbers, None)] for row in features]
        return numeric, np.array(texts, dtype=object)

    def _outputs(self, answers: np.ndarray) -> list[Outputs]:
        """Convert the answers of the model to the outputs of each row."""
        # Of few float32 values Python's sum, a float64 that cannot overflow, is finite when all of them are.
        listed = answers.tolist()
        if not isfinite(sum(map(sum, listed))):
            row = int(np.argmin(np.isfinite(answers).all(axis=1)))
            raise RequestError(row=row, field=None, problem="the model has no finite answer", allowed="less extreme numbers")
        return [self._output(row) for row in listed]

    def _output(self, answer: list[float]) -> Outputs:
        problem = self.bundle.contract.problem
        if problem == "regression":
            return Outputs(value=answer[0])
        score, position = self.bundle.decide_row(answer)
        label = self.bundle.contract.classes[position]
        return Outputs(
            score=score, predicted_label=label, probabilities=answer if problem == "multiclass_classification" else None
        )

    def _views(self, row: Row, looked_up: Mapping[str, ViewValues]) -> dict[str, ViewValues]:
        """Return the origin of the values by view when the row gave some itself."""
        return {
            name: supplied if self._view_features[name] <= row.features.keys() else looked_up[name]
            for name, supplied in self._supplied.items()
        }
