"""Small realistic data shared by the tests of models: numbers with gaps, categories of several sizes, three kinds of label."""

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.schema.problem import Problem

# Fits of a few thousand rows: threads that wait for each other on a busy machine cost seconds and gain nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Sample:
    schema: FeatureSchema
    frame: pd.DataFrame
    labels: dict[Problem, np.ndarray]


@pytest.fixture(scope="session")
def sample() -> Sample:
    random = np.random.default_rng(7)
    rows = 3000
    schema = FeatureSchema(numeric=("continuous", "count", "flag", "gaps"), categorical=("color", "tail"))
    frame = pd.DataFrame(
        {
            "continuous": random.normal(size=rows).astype(np.float32),
            "count": random.integers(0, 40, rows).astype(np.float32),
            "flag": random.integers(0, 2, rows).astype(np.float32),
            "gaps": np.where(random.random(rows) < 0.3, np.nan, random.normal(100, 30, rows)).astype(np.float32),
            "color": random.choice(["red", "green", "blue", ""], rows).astype(object),
            "tail": np.array([f"N{number}" for number in random.zipf(1.5, rows) % 300], dtype=object),
        }
    )
    signal = frame["continuous"] + frame["count"] / 20 + (frame["color"] == "red") + np.nan_to_num(frame["gaps"]) / 100
    value = (signal + random.normal(size=rows)).to_numpy(dtype=np.float64)
    cuts = np.quantile(value, [0.5, 0.8])
    return Sample(
        schema=schema,
        frame=frame,
        labels={
            "binary_classification": (value > cuts[1]).astype(np.int64),
            "multiclass_classification": np.array(["low", "middle", "high"], dtype=object)[np.digitize(value, cuts)],
            "regression": value,
        },
    )
