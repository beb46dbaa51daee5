"""The US census employment data that ships inside the package nannyml, as tests read it: real, and shuffled within its years.

The file is ordered within each year, so that rows in order would measure the order of the file.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.ml.matrix import FeatureSchema

NUMERIC = ("AGEP",)
CATEGORICAL = (
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
SCHEMA = FeatureSchema(numeric=NUMERIC, categorical=CATEGORICAL)


def census(name: str, rows: int, *, seed: int = 0) -> pa.Table:
    """`rows` random rows of the `reference` (2015) or `analysis` (2016 to 2018): features, `score`, `predicted_label`, `employed`, `year`."""
    spec = find_spec("nannyml")
    assert spec is not None
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    table = pq.read_table(folder / f"employment_MA_{name}.pq")
    if name == "analysis":
        labels = pq.read_table(folder / "employment_MA_analysis_target.pq")
        table = table.join(labels, "id")
    table = table.sort_by("id").take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)[:rows]))
    return pa.table(
        {
            **{each: table[each].cast(pa.float64()) for each in NUMERIC},
            **{each: table[each].cast(pa.string()) for each in CATEGORICAL},
            "score": table["predicted_probability"],
            "predicted_label": table["prediction"].cast(pa.int64()),
            "employed": table["employed"].cast(pa.int64()),
            "year": table["year"].cast(pa.int64()),
        }
    )
