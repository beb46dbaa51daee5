"""`mlops check --changed` in a project of `mlops init`: what a change touches is tested, and what it does not touch is not."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parcels import SOLUTION, SOURCE, SPINE_COLUMNS, current_project_is, declare
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.core.project import Project
from mlops_assets.core.settings import Settings
from mlops_assets.operations.project_files import create_project
from mlops_assets.operations.touched_parts import find_touched_parts, has_effect

pytestmark = pytest.mark.long

STAGING = """select parcel_id, sent_date, sent_at, depot, weight_kg, distance_km, delivered_at, _loaded_at
from {{ source('raw', 'parcels') }}
where {{ mlops.in_window('sent_date') }}
"""
SPINE = """select
    parcel_id, sent_date, sent_at, depot, weight_kg, distance_km,
    (delivered_at - sent_at > interval 24 hour)::integer as is_late,
    delivered_at, _loaded_at
from {{ ref('stg_parcels') }}
"""
DELAY = SOLUTION.replace("    table: parcels\n", "    model: parcel_spine\n").replace(
    "    expressions: {is_late: delivered_at - sent_at > INTERVAL 24 HOUR}\n", ""
)
# It is wrong since long ago.
ORDERS = SOLUTION.replace("parcel_delay", "order_delay").replace("table: parcels", "table: orders").replace("50}", "-5}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("touched") / "bakery"
    create_project(root)
    project = Project.read(root)
    declare(project, "parcels", SOURCE)
    declare(project, "orders", SOURCE.replace("    parcels:", "    orders:").replace("parcels.csv", "orders.csv"))
    for name in ("parcels", "orders"):
        header = "parcel_id,sent_at,depot,weight_kg,distance_km,delivered_at\n"
        (project.definitions_directory / name / f"{name}.csv").write_text(header)
    declare(project, "parcel_delay", DELAY)
    declare(project, "order_delay", ORDERS)
    models = project.dbt_project / "models"
    (models / "staging" / "stg_parcels.sql").write_text(STAGING)
    (models / "solutions" / "parcel_spine.sql").write_text(SPINE)
    columns = [f"      - {{name: {column}, data_type: {kind}}}\n" for column, kind in SPINE_COLUMNS.items()]
    staged = "".join(column for column in columns if "is_late" not in column)
    (models / "staging" / "stg_parcels.yml").write_text(f"models:\n  - name: stg_parcels\n    columns:\n{staged}")
    (models / "solutions" / "parcel_spine.yml").write_text(
        "models:\n  - name: parcel_spine\n    config: {schema: parcel_delay, alias: spine, materialized: incremental, "
        f"tags: [parcel_delay], meta: {{partition_column: sent_date}}}}\n    columns:\n{''.join(columns)}"
    )
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=Bakery")
    with current_project_is(root):
        yield project


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments], cwd=root, check=True)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def check(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["check", *arguments, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def test_a_changed_dbt_model_is_tested_with_what_follows_from_it_and_nothing_else(project: Project) -> None:
    staging = project.dbt_project / "models" / "staging"
    replace(staging / "stg_parcels.sql", "distance_km", "distance_km as distance_miles")
    replace(staging / "stg_parcels.yml", "distance_km", "distance_miles")
    code, found = check("--changed", "main")
    assert (code, found["untouched"]) == (1, ["order_delay"])
    assert set(found["folders"]) == {"parcel_delay", "parcels"}
    [fault] = [fault for fault in found["faults"] if fault["severity"] == "error"]
    assert Path(fault["file"]).name == "parcel_spine.sql"
    assert "distance_km" in fault["message"]
    git(project.root, "checkout", "--quiet", ".")


def test_a_changed_folder_is_tested_with_the_solutions_that_read_it(project: Project) -> None:
    replace(project.definitions_directory / "orders" / "defs.yaml", "maximum: 50", "maximum: 60")
    (project.root / "README.md").write_text("Ours.")
    code, found = check("--changed", "main")
    assert (code, found["untouched"], set(found["folders"])) == (1, ["parcel_delay"], {"order_delay", "orders"})
    git(project.root, "checkout", "--quiet", ".")


def test_a_changed_solution_is_tested_and_no_other_one(project: Project) -> None:
    replace(project.definitions_directory / "parcel_delay" / "defs.yaml", "max_iter: 50", "max_iterations: 60")
    code, found = check("--changed", "main")
    assert (code, found["untouched"]) == (1, ["order_delay"])
    assert {Path(fault["file"]).parent.name for fault in found["faults"] if fault["severity"] == "error"} == {"parcel_delay"}
    git(project.root, "checkout", "--quiet", ".")


def test_documents_touch_nothing(project: Project) -> None:
    (project.root / "README.md").write_text("Ours.")
    (project.root / "docs").mkdir()
    (project.root / "docs" / "orders.md").write_text("Orders are wrong since long ago.")
    code, found = check("--changed", "main")
    assert (code, found["untouched"], found["folders"], found["faults"]) == (0, ["order_delay", "parcel_delay"], [], [])
    git(project.root, "checkout", "--quiet", ".")
    shutil.rmtree(project.root / "docs")


def test_a_folder_that_became_a_document_is_a_change(project: Project) -> None:
    (project.root / "docs").mkdir()
    git(project.root, "mv", "bakery/defs/orders/orders.csv", "docs/orders.md")
    assert has_effect(project, "main")
    git(project.root, "reset", "--quiet", "--hard")


@pytest.mark.parametrize("file", ["bakery/helper.py", "dbt_project/packages.yml", "requirements.lock", "deployments/prod.env"])
def test_a_change_of_what_all_may_use_leaves_nothing_out(project: Project, file: str) -> None:
    path = project.root / file
    before = path.read_text() if path.exists() else None
    path.write_text("# changed\n")
    touched = find_touched_parts(Settings(home=project.state_directory), project, "main")
    path.unlink() if before is None else path.write_text(before)
    assert touched.reason == f"{file} changed, which every part may use"


def test_a_name_and_a_change_are_two_selections(project: Project) -> None:
    refused = CliRunner().invoke(app, ["check", "orders", "--changed", "main"])
    assert (refused.exit_code, "two selections" in refused.stderr) == (1, True)
