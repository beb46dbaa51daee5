"""Prediction records for tests."""

from datetime import UTC, date, datetime

from mlops_assets.online_store.values import Flag, ViewValues
from mlops_assets.serving.prediction_record import Outputs, PredictionRecord, build_prediction_id

MOMENT = datetime(2013, 7, 4, 12, 0, tzinfo=UTC)


def prediction_record(number: int, **changes: object) -> PredictionRecord:
    """The record of prediction `number`; the same number gives the same record."""
    fields: dict[str, object] = {
        "prediction_id": build_prediction_id(solution="late", channel="online", request_id=str(number), role="champion"),
        "solution": "late",
        "channel": "online",
        "role": "champion",
        "answered": True,
        "model_version": 3,
        "key": f"flight-{number}",
        "partition": date(2013, 7, 4),
        "prediction_time": MOMENT,
        "entity": {"carrier": "UA"},
        "features": {"distance": 1400.0, "carrier": "UA", "delay": None},
        "outputs": Outputs(score=0.25, predicted_label=0),
        "views": {"history": ViewValues(version=1, flag=Flag.OK, snapshot=12, event_timestamp=MOMENT)},
        "served_at": MOMENT,
    }
    return PredictionRecord(**(fields | changes))  # type: ignore[arg-type]
