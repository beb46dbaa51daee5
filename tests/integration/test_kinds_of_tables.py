"""Tables of all kinds, from the file to a model's answer: `mlops new` writes the solution, a real lake holds the rows, a real bundle answers."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from bundles import fit_bundle, load
from new_tables import propose_text, raw_table, solution

from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.features.generated.dbt_model import GeneratedModel
from mlops_assets.features.generated.spine import derive_spine
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import quote
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.pipeline import predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.operations.new_solution.proposal import Proposal
from mlops_assets.schema.declarations import DeclaredTable
from mlops_assets.schema.problem import label_array
from mlops_assets.sources.reader import PARSED, REASON, parse
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_dataset import build_training_dataset

ROWS = 400
START = datetime(2024, 1, 1)


@dataclass(frozen=True)
class Kind:
    """One kind of table: the cells of a row by column, the answers of a person, and what the model has to answer."""

    row: Callable[[int], dict[str, Any]]
    answers: dict[str, Any]
    features: int
    classes: list[Any]


def _signal(number: int) -> float:
    return float(np.sin(number * 12.9898) * 43758.5453 % 1)


def _composite(number: int) -> dict[str, Any]:
    """Two entities whose numbers are unique together only, decimals, a truth value, and a label known a day later."""
    moment = START + timedelta(hours=number)
    share = _signal(number)
    return {
        "Filiale": ("Köln", "Zürich")[number % 2],
        "Beleg Nr": number // 2,
        "sent at": moment.isoformat(sep=" "),
        "Betrag": f"{share * 1000:.2f}",
        "is new": ("true", "false")[number % 3 > 0],
        "known at": (moment + timedelta(days=1)).isoformat(sep=" "),
        "zurück?": ("да", "нет")[share > 0.4],
    }


def _wide(number: int) -> dict[str, Any]:
    """Sixty columns of all types, with gaps."""
    row: dict[str, Any] = {}
    for column in range(60):
        value = _signal(number * 60 + column)
        cells = (f"{value:.4f}", int(value * 9), "abc"[int(value * 3)], value > 0.5)
        row[f"Spalte {column}"] = "" if value < 0.05 else cells[column % 4]
    return {**row, "Ziel": f"{100 * (_signal(number * 60) + _signal(number)):.3f}"}


def _codes(number: int) -> dict[str, Any]:
    """Categories as numbers with leading zeros, a text in nearly every row, and classes with spaces, quotes and signs."""
    share, other = _signal(number), _signal(number + ROWS)
    return {
        "Postleitzahl": f"0{1000 + int(other * 7)}",
        "Gruppe": int(share * 5),
        "Notiz": f"Gespräch {number}: {share}",
        "select": f"{share:.3f}",
        "Art": ("rote Art", 'Öl & "Essig"', "種類 三")[int(3 * (share + other) / 2)],
    }


def _stars(number: int) -> dict[str, Any]:
    """Numbers that are classes."""
    share, other = _signal(number), _signal(number + ROWS)
    return {"x": f"{share:.3f}", "y": number % 7, "Sterne": 1 + int(5 * (share + other) / 2)}


KINDS = {
    "composite key": Kind(
        _composite,
        {
            "label": "zurück?",
            "time": "sent at",
            "known_at": "known at",
            "key": ("Filiale", "Beleg Nr"),
            "positive": "да",
            "time_zone": "Europe/Berlin",
        },
        features=2,
        classes=[0, 1],
    ),
    "60 features": Kind(_wide, {"label": "Ziel"}, features=60, classes=[]),
    "codes": Kind(_codes, {"label": "Art"}, features=3, classes=["rote Art", 'Öl & "Essig"', "種類 三"]),
    "stars": Kind(_stars, {"label": "Sterne", "problem": "multiclass"}, features=2, classes=[1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("name", ["composite key", pytest.param("60 features", marks=pytest.mark.long), "codes", "stars"])
def test_a_table_becomes_a_model_that_answers(name: str, make_lake: Callable[[], Lake], tmp_path: Path) -> None:
    kind, text = KINDS[name], io.StringIO()
    rows = [kind.row(number) for number in range(ROWS)]
    writer = csv.DictWriter(text, rows[0], delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    proposal = propose_text(tmp_path, text.getvalue(), **kind.answers)
    lake = make_lake()
    day = _write_tables(lake, proposal, tmp_path)
    inputs = _inputs(proposal)
    assert len(inputs.features) == kind.features
    result = dg.materialize(
        [build_training_dataset(inputs)],
        resources={"lake": lake, "settings": Settings(home=lake.data_directory)},
        partition_key=day.isoformat(),
    )
    failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
    assert failed == set()
    label, problem = inputs.solution.spine.label, inputs.solution.problem
    with lake.connect(read_only=True) as connection:
        names = ", ".join(map(quote, inputs.features))
        table = connection.execute(f"SELECT {names} FROM lake.things.training_dataset").to_arrow_table()
        labels = connection.execute(f"SELECT {quote(label)} FROM lake.things.training_dataset").to_arrow_table()
    schema = FeatureSchema.from_arrow(table.schema, inputs.features)
    estimator = inputs.solution.training.estimator
    fitted = fit_bundle(
        table,
        label_array(labels[label], problem),
        schema=schema,
        problem=problem,
        estimator=PipelineStep(estimator.type, dict(estimator.parameters)),
        requests=[{} for _ in range(3)],
    )
    assert list(fitted.contract.classes) == kind.classes
    scored = load(fitted.write(tmp_path / "bundle")).score(table.append_column("id", pa.array(range(table.num_rows))))
    expected = predict(fitted.pipeline, to_frame(table, schema), problem)
    if problem == "regression":
        np.testing.assert_allclose(scored["value"].to_numpy(), expected, rtol=1e-5, atol=1e-4)
    elif problem == "binary_classification":
        np.testing.assert_allclose(scored["score"].to_numpy(), expected[:, 1], atol=1e-6)
    else:
        assert scored["predicted_label"].to_pylist() == [kind.classes[row] for row in expected.argmax(axis=1)]


def _write_tables(lake: Lake, proposal: Proposal, folder: Path) -> date:
    """Load the rows as the platform reads them, and the spine as it is compiled. Returns the day of the training."""
    table, declared = raw_table(proposal), solution(proposal)
    partitions = declared.partitions
    days, first, end = "DATE '2026-01-01'", partitions.start, partitions.start + timedelta(days=1)
    if declared.spine.has_time:
        assert partitions.end is not None
        end = partitions.end
    sql = (
        _spine(proposal)
        .sql.replace("{{ source('raw', 'things') }}", "lake.raw.things")
        .replace(f"{{{{ mlops.in_window('{partitions.column}') }}}}", "true")
        .replace("{{ mlops.snapshot_days('snapshot_date') }}", f"(VALUES ({days})) days(snapshot_date)")
        .replace("{{ mlops.start_of_business_date('snapshot_date') }}", "snapshot_date::TIMESTAMP AT TIME ZONE 'UTC'")
    )
    with lake.connect(read_only=False) as connection, parse(connection, table, directory=folder, window=None):
        names = ", ".join(map(quote, table.columns))
        query = f"SELECT {names}, TIMESTAMPTZ '2024-01-01' AS _loaded_at FROM {PARSED} WHERE {REASON} IS NULL"
        lake.replace(connection, table="raw.things", query=query, partition_range=None, author="test")
        whole = PartitionRange(partitions.column, first, end)
        lake.replace(connection, table="things.spine", query=sql, partition_range=whole, author="test")
        key = quote(declared.spine.key)
        counted = connection.execute(f"SELECT count(*), count(DISTINCT {key}) FROM lake.things.spine").fetchall()
    assert counted == [(ROWS, ROWS)], "no row is lost, and no two are one"
    return first + timedelta(days=int(declared.training.window[:-1])) if declared.spine.has_time else first


def _spine(proposal: Proposal) -> GeneratedModel:
    tables = {"things": DeclaredTable("things", "things", ("team:data",), Path("defs/things/defs.yaml"), raw_table(proposal))}
    return derive_spine(solution(proposal), origin="defs.yaml", tables=tables, entities={})


def _inputs(proposal: Proposal) -> SolutionInputs:
    declared = solution(proposal)
    columns = {column["name"].strip('"'): column["data_type"] for column in _spine(proposal).document["columns"]}
    spine = DbtModel(
        name="things_spine",
        table="things.spine",
        description="",
        columns=columns,
        column_descriptions={},
        partition_column=declared.partitions.column,
    )
    request = tuple(declared.features[0].request or ())
    return SolutionInputs(solution=declared, spine=spine, views=(), request=request, derived={})
