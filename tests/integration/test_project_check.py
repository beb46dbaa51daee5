"""`mlops check` on a project of broken files: all faults at once, each with file, line and what is allowed, without a stack."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parcels import SOLUTION, SOURCE, SPINE_COLUMNS, declare, parcels_project

from mlops_assets.core.project import Project

pytestmark = pytest.mark.long

Mlops = Callable[..., "subprocess.CompletedProcess[str]"]

CSV = "parcel_id,sent_at,depot,weight_kg,distance_km,delivered_at\n"

SPINE = """select
    parcel_id, sent_date, sent_at, depot, weight_kg,
    distance_kms,
    (delivered_at - sent_at > interval 24 hour)::integer as is_late,
    delivered_at, _loaded_at
from {{ source('raw', 'parcels') }}
where {{ mlops.in_window('sent_date') }}
"""


def spine_yaml(name: str, **types: str) -> str:
    columns = "\n".join(f"      - {{name: {column}, data_type: {kind}}}" for column, kind in {**SPINE_COLUMNS, **types}.items())
    return (
        f"models:\n  - name: {name}\n    config: {{schema: {name}, alias: spine, materialized: incremental, tags: [parcels], "
        f"meta: {{partition_column: sent_date}}}}\n    columns:\n{columns}\n"
    )


def variant(name: str, *changes: tuple[str, str]) -> str:
    """The solution under another name, with changes of its text."""
    text = SOLUTION.replace("name: parcel_delay", f"name: {name}")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


BROKEN = {
    "fields": variant(
        "fields", ("window: 90d", "windw: 90d"), ("[team:logistics]", "[logistics]"), ("floor: {roc_auc: 0.6}", "floors: {f1: 1}")
    ),
    "periods": variant("periods", ("holdout: 14d", "holdout: 400d"), ("window: 90d", "window: 300d")),
    "label": variant("label", ("[depot, weight_kg,", "[depot, delivered_at,")),
    "estimator": variant(
        "estimator", ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), ("max_iter", "max_iters")
    ),
    "values": variant("values", ("max_iter: 50", "max_iter: -5, learning_rate: fast")),
    "gates": variant("gates", ("{floor: {roc_auc: 0.6}}", "{floor: {roc_auc: 60, mean_absolute_error: 3}, slices: [depo]}")),
    "syntax": variant("syntax", ("[depot, weight_kg, distance_km]", "[depot, weight_kg, distance_km")),
    "calendar": variant("calendar", ("start: 2024-01-01", "start: 2024-13-01")),
    "twice": variant("twice", ("  problem:", "  name: other\n  problem:")),
    "late": variant("late", ("[depot, weight_kg,", "[depot, hours,")),
    "sql": variant(
        "sql",
        ("    table: parcels\n", "    model: sql\n"),
        ("    expressions: {is_late: delivered_at - sent_at > INTERVAL 24 HOUR}\n", ""),
    ),
    "contract": variant(
        "contract",
        ("    table: parcels\n", "    model: contract\n"),
        ("    expressions: {is_late: delivered_at - sent_at > INTERVAL 24 HOUR}\n", ""),
    ),
    "orders": SOURCE.replace("    parcels:", "    orders:")
    .replace("parcels.csv", "orders.csv")
    .replace("CAST(sent_at AS DATE)", "row_number() over ()"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("broken")
    project = parcels_project(root)
    hours = "\n        hours: {type: double, expression: epoch(delivered_at - sent_at) / 3600, description: Hours on the way.}"
    declare(project, "parcels", SOURCE.rstrip() + hours + "\n")
    (project.definitions_directory / "parcels" / "parcels.csv").write_text(CSV)
    for folder, text in BROKEN.items():
        declare(project, folder, text)
    models = project.dbt_project / "models"
    models.mkdir()
    for name, sql in (("sql", SPINE), ("contract", SPINE.replace("distance_kms", "distance_km"))):
        (models / f"{name}.sql").write_text(sql)
        (models / f"{name}.yml").write_text(spine_yaml(name, **({"weight_kg": "varchar"} if name == "contract" else {})))
    return project


@pytest.fixture(scope="module")
def mlops(project: Project) -> Mlops:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "PYTHON", "DAGSTER"))}
        command = [str(Path(sysconfig.get_path("scripts")) / "mlops"), *arguments]
        return subprocess.run(command, cwd=project.root, env=own, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def answer(mlops: Mlops) -> dict[str, Any]:
    done = mlops("check", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    return json.loads(done.stdout)


def faults(project: Project, answer: dict[str, Any], folder: str) -> list[tuple[str, str, str]]:
    """The text of the line, the field and the message of each fault of a folder of `defs/` or a file of the dbt project."""
    named = []
    for fault in answer["faults"]:
        file = Path(fault["file"])
        if folder in (file.parent.name, file.name):
            line = file.read_text().splitlines()[fault["line"] - 1].strip() if fault["line"] else ""
            named.append((line, fault["field"], fault["message"]))
    return named


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (
            "fields",
            [
                ("owners: [logistics]", "owners.0", "write team:logistics"),
                ("windw: 90d", "training.windw", "did you mean window"),
                ("gates: {floors", "gates.floors", "did you mean floor"),
            ],
        ),
        ("periods", [("holdout: 400d", "training.holdout", "not shorter than the window of 300d")]),
        ("label", [("- request:", "features.0.request.1", "is the label or tells it")]),
        (
            "estimator",
            [
                ("estimator: {type", "training.estimator.parameters.max_iters", "did you mean max_iter"),
                ("estimator: {type", "training.estimator.type", "needs a classifier"),
            ],
        ),
        (
            "values",
            [
                ("estimator: {type", "training.estimator.parameters.learning_rate", "must be a float"),
                ("estimator: {type", "training.estimator.parameters.max_iter", "must be an int in the range [1"),
            ],
        ),
        (
            "gates",
            [
                ("gates: {floor", "gates.floor.mean_absolute_error", "is no metric of binary_classification"),
                ("gates: {floor", "gates.floor.roc_auc", "cannot be better than 1"),
                ("gates: {floor", "gates.slices.0", "did you mean depot"),
            ],
        ),
        ("syntax", [("- request:", "", "flow sequence")]),
        (
            "calendar",
            [("partitions: {column: sent_date, start: 2024-13-01, end: 2024-05-01}", "", "month must be in 1..12; correct it")],
        ),
        ("twice", [("name: other", "name", "is given twice")]),
        ("late", [("- request:", "features.0.request.1", "known only with")]),
        ("sql.sql", [("distance_kms,", "sql", '"distance_km"')]),
        (
            "contract.yml",
            [
                (
                    "- {name: weight_kg, data_type: varchar}",
                    "contract.columns.weight_kg",
                    "is VARCHAR here and DOUBLE in models/contract.sql",
                )
            ],
        ),
        (
            "orders",
            [
                ("files: [orders.csv]", "tables.orders.files.0", "there is no file orders.csv"),
                (
                    "sent_date: {type: date",
                    "tables.orders.columns.sent_date.expression",
                    "no aggregate, window function or subquery",
                ),
            ],
        ),
    ],
)
def test_every_fault_of_a_broken_file_is_told_with_its_line(
    project: Project, answer: dict[str, Any], folder: str, expected: list[tuple[str, str, str]]
) -> None:
    found = faults(project, answer, folder)
    assert len(found) == len(expected), found
    for (line, field, message), (expected_line, expected_field, expected_message) in zip(found, expected, strict=True):
        assert expected_line in line
        assert field == expected_field
        assert expected_message in message


def test_what_is_right_has_no_fault(project: Project, answer: dict[str, Any]) -> None:
    assert faults(project, answer, "parcel_delay") == []
    assert faults(project, answer, "parcels") == []
    assert any("lake does not run" in reason for reason in answer["not_checked"])


@pytest.mark.usefixtures("answer")
def test_one_solution_is_checked_with_what_it_needs(mlops: Mlops) -> None:
    done = mlops("check", "parcel_delay")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is wrong in 2 folders." in done.stdout
    unknown = mlops("check", "parcel_dely")
    assert unknown.returncode == 1
    assert "did you mean parcel_delay" in unknown.stderr


@pytest.mark.usefixtures("answer")
def test_a_solution_is_removed_with_what_only_it_uses(project: Project, mlops: Mlops) -> None:
    """Last, because its files are gone then."""
    folder = project.definitions_directory / "contract"
    declare(project, "contract", BROKEN["contract"])
    assert mlops("prepare").returncode == 0
    plan = json.loads(mlops("remove", "contract", "--json").stdout)
    assert plan["folders"] == [str(folder)]
    assert plan["files"] == [str(project.dbt_project / "models" / name) for name in ("contract.sql", "contract.yml")]
    assert "raw table parcels and its source" in plan["kept"]
    assert folder.is_dir()
    done = mlops("remove", "contract", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not folder.exists()
    assert sorted(path.name for path in (project.dbt_project / "models").iterdir()) == ["sql.sql", "sql.yml"]
    assert (project.definitions_directory / "parcels").is_dir()
