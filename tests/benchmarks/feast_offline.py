"""A training frame through Feast's `get_historical_features`, timed; runs in Feast's own environment. No tests here.

Its argument is a folder with `asked.json`, the spine and the feature views as Parquet, from `test_training_frame.py`. Prints the
seconds of every repetition and the rows of the frame as JSON.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Bool, Float64, Int32, Int64, String

_TYPES = {"double": Float64, "int32": Int32, "int64": Int64, "bool": Bool, "string": String}


def main(folder: Path, views: list[dict], repetitions: int) -> None:
    """Build the frame of the spine as often as asked."""
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "duckdb"},
            entity_key_serialization_version=3,
        )
    )
    # An entity of Feast has one key.
    keys = {key for view in views for key in view["keys"]}
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys}
    defined = []
    for view in views:
        path = folder / f"{view['name']}.parquet"
        types = {field.name: str(field.type) for field in pq.read_schema(path)}
        schema = [Field(name=name, dtype=_TYPES[types[name]]) for name in (*view["keys"], *view["features"])]
        defined.append(
            FeatureView(
                name=view["name"],
                entities=[entities[key] for key in view["keys"]],
                ttl=timedelta(days=view["freshness_days"]),
                schema=schema,
                source=FileSource(path=str(path), timestamp_field="event_timestamp"),
            )
        )
    store.apply([*entities.values(), *defined])
    spine = pd.read_parquet(folder / "spine.parquet")
    references = [f"{view['name']}:{feature}" for view in views for feature in view["features"]]
    seconds, rows = [], 0
    for _ in range(repetitions):
        began = time.perf_counter()
        frame = store.get_historical_features(entity_df=spine, features=references).to_df()
        seconds.append(time.perf_counter() - began)
        rows = len(frame)
    json.dump({"seconds": seconds, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    home = Path(sys.argv[1])
    asked = json.loads((home / "asked.json").read_text())
    main(home, asked["views"], asked["repetitions"])
