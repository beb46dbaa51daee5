"""Scoring validated rows: look the features up, derive, override, and let the model answer. The same under every channel.

Nothing is logged or sent here: that belongs to the channels.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np

from mlops_assets.ml.matrix import MISSING_CATEGORY
from mlops_assets.resources.online_store.store import FeatureRequest, OnlineRow, OnlineStore
from mlops_assets.resources.online_store.values import Flag
from mlops_assets.serving.bundle import Bundle
from mlops_assets.serving.derived import DerivedFeatures
from mlops_assets.serving.prediction_record import (
    Channel,
    Outputs,
    PredictionRecord,
    Role,
    Value,
    ViewValues,
    build_prediction_id,
)
from mlops_assets.serving.requests import RequestError, Row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What the model answered for one row, and from what: the part of a `PredictionRecord` that the model decides.

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

    def record(self, *, solution: str, channel: Channel, role: Role, answered: bool, request_id: str) -> PredictionRecord:
        """The prediction as it is logged, served now."""
        return PredictionRecord(
            prediction_id=build_prediction_id(solution=solution, channel=channel, request_id=request_id, role=role),
            solution=solution,
            channel=channel,
            role=role,
            answered=answered,
            served_at=datetime.now(UTC),
            **{name: getattr(self, name) for name in self.__struct_fields__},
        )


class Scorer:
    """Scores the rows of one bundle with one online store. Safe to call from several threads; each process makes its own."""

    def __init__(self, bundle: Bundle, online_store: OnlineStore):
        contract = bundle.contract
        self.bundle = bundle
        self._schema = contract.feature_schema
        self._entity_keys = tuple(column.name for column in contract.entity_keys)
        self._request_columns = tuple(column.name for column in contract.request_columns)
        self._online = tuple(view for view in contract.feature_views if view.online)
        self._supplied = {
            view.name: ViewValues(version=view.version, flag=Flag.REQUEST, snapshot=None, event_timestamp=None)
            for view in contract.feature_views
        }
        self._view_features = {view.name: frozenset(view.features) for view in contract.feature_views}
        self._reader = online_store.reader(tuple(FeatureRequest(view.name, view.version, view.features) for view in self._online))
        self._derived = DerivedFeatures(contract)

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Answers for `rows`, in their order. A feature that is unknown counts as missing, which the flag of its view tells.

        Raises RequestError for the first row to which the model gives no finite answer, and UnknownOnlineViewError when the online
        store lacks a view.
        """
        if not rows:
            return []
        found = self._look_up(rows)
        derived = self._derived.evaluate([row.columns for row in rows])
        features = [self._features(row, read, computed) for row, read, computed in zip(rows, found, derived, strict=True)]
        outputs = self._answer(features)
        return [
            Scored(
                key=row.key,
                partition=row.partition,
                prediction_time=row.prediction_time,
                model_version=self.bundle.contract.version,
                entity={name: row.columns[name] for name in self._entity_keys},
                features=values,
                outputs=output,
                views=self._views(row, read),
            )
            for row, read, values, output in zip(rows, found, features, outputs, strict=True)
        ]

    def _look_up(self, rows: Sequence[Row]) -> list[OnlineRow]:
        if not self._online:
            return [OnlineRow({}, {}, {}) for _ in rows]
        return self._reader.read([row.columns for row in rows], [row.prediction_time for row in rows])

    def _features(self, row: Row, read: OnlineRow, derived: dict[str, Value]) -> dict[str, Value]:
        known = {**row.columns, **derived, **read.values, **row.features}
        return {name: known[name] for name in self._schema.names}

    def _answer(self, features: Sequence[dict[str, Value]]) -> list[Outputs]:
        # A value of the store beyond float32 is infinite in the lake's batches too.
        with np.errstate(over="ignore"):
            numbers = [[row[name] for name in self._schema.numeric] for row in features]
            numeric = np.array(numbers, dtype=np.float32).reshape(len(features), -1)
        texts = [
            [MISSING_CATEGORY if (value := row[name]) is None else value for name in self._schema.categorical] for row in features
        ]
        categorical = np.array(texts, dtype=object).reshape(len(features), -1)
        answers = self.bundle.predict(numeric, categorical)
        if not np.isfinite(answers).all():
            row = int(np.argmin(np.isfinite(answers).all(axis=1)))
            raise RequestError(row=row, field=None, problem="the model has no finite answer", allowed="less extreme numbers")
        problem = self.bundle.contract.problem
        if problem == "regression":
            return [Outputs(value=value) for value in answers.reshape(-1).tolist()]
        scores, positions = self.bundle.decide(answers)
        classes = self.bundle.contract.classes
        decided = [(score, classes[position]) for score, position in zip(scores.tolist(), positions.tolist(), strict=True)]
        if problem == "binary_classification":
            return [Outputs(score=score, predicted_label=label) for score, label in decided]
        return [
            Outputs(score=score, predicted_label=label, probabilities=each)
            for (score, label), each in zip(decided, answers.tolist(), strict=True)
        ]

    def _views(self, row: Row, read: OnlineRow) -> dict[str, ViewValues]:
        views = {}
        for name, supplied in self._supplied.items():
            if row.features and self._view_features[name] <= row.features.keys():
                views[name] = supplied
                continue
            origin = read.origins.get(name)
            known = origin.event_timestamp if origin else None
            views[name] = ViewValues(
                version=supplied.version,
                flag=read.flags[name],
                snapshot=origin.snapshot if origin else None,
                event_timestamp=None if known is None else _EPOCH + timedelta(microseconds=known),
            )
        return views
