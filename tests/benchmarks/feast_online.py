"""Reads through Feast's SQLite online store, timed; runs in Feast's own environment. No tests here.

Its argument is a folder with `asked.json`, from `test_online_store.py`. Prints the seconds of every read as JSON.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64


def main(folder: Path, views: dict[str, list[str]], entities: int, reads: dict[str, list[list[str]]]) -> None:
    """Store the same number for every feature of every entity, then read as asked."""
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="entity", join_keys=["id"], value_type=ValueType.STRING)
    moment = datetime.now(tz=UTC)
    defined = []
    for name, features in views.items():
        frame = pd.DataFrame({"id": [f"e{number}" for number in range(entities)], "event_timestamp": moment})
        for feature in features:
            frame[feature] = 0.5
        path = folder / f"{name}.parquet"
        frame.to_parquet(path)
        source = FileSource(path=str(path), timestamp_field="event_timestamp")
        schema = [Field(name=feature, dtype=Float64) for feature in features]
        defined.append(FeatureView(name=name, entities=[entity], ttl=timedelta(days=7), schema=schema, source=source))
    store.apply([entity, *defined])
    for view in defined:
        store.write_to_online_store(view.name, df=pd.read_parquet(folder / f"{view.name}.parquet"))
    references = [f"{name}:{feature}" for name, features in views.items() for feature in features]
    seconds: dict[str, list[float]] = {}
    for size, batches in reads.items():
        seconds[size] = []
        for batch in batches:
            rows = [{"id": key} for key in batch]
            began = time.perf_counter()
            answer = store.get_online_features(features=references, entity_rows=rows).to_dict()
            seconds[size].append(time.perf_counter() - began)
            assert answer[next(iter(views.values()))[0]] == [0.5] * len(batch)
    json.dump(seconds, sys.stdout)


if __name__ == "__main__":
    home = Path(sys.argv[1])
    asked = json.loads((home / "asked.json").read_text())
    main(home, asked["views"], asked["entities"], asked["reads"])
