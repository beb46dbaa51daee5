"""`mlops diff` of a project in which a feature is renamed, a rule of the label changed, and a parameter of the model.

Production is a real lake, of which the review has a role that can read and nothing else.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_dbt.dbt_manifest import read_manifest_path
from dbt_process import run_dbt
from object_storage import ObjectStore
from parcels import SOLUTION, SOURCE, VIEWS, current_project_is, declare, parcels_project
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.core.project import Project
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.lake.lake import Lake
from mlops_assets.local.environment import process_environment
from mlops_assets.local.prepare import prepare

pytestmark = pytest.mark.long

VIEW = VIEWS[: VIEWS.index("    depot_parcels:")]
DEFINITIONS = """import dagster as dg
from mlops_assets.components.project import project_definitions

defs = dg.definitions(project_definitions)
"""
PARCELS = """CREATE SCHEMA lake.raw; CREATE TABLE lake.raw.parcels AS
SELECT 'p' || i AS parcel_id, sent_at, ['north', 'south', 'east'][1 + i % 3] AS depot, hash(i) % 500 / 10 AS weight_kg,
    CAST(1 + hash(i + 7) % 900 AS INTEGER) AS distance_km,
    sent_at + to_minutes(CAST(120 + hash(i + 7) % 900 * 2 + hash(i + 11) % 600 AS INTEGER)) AS delivered_at,
    CAST(sent_at AS DATE) AS sent_date, TIMESTAMPTZ '2024-05-01 00:00:00Z' AS _loaded_at, 'test' AS _source
FROM (SELECT i, TIMESTAMPTZ '2024-01-01 00:00:00Z' + to_minutes(CAST(i * 24 AS INTEGER)) AS sent_at FROM range(60 * 110) r(i))
"""

RENAMED = ("parcels", "depot_late_rate_7d", "depot_late_share_7d")
RELABELLED = ("parcel_delay", "INTERVAL 24 HOUR", "INTERVAL 12 HOUR")
RETUNED = ("parcel_delay", "max_iter: 50", "max_iter: 2")
WEAKENED = ("parcel_delay", "max_iter: 50", "max_iter: 1, max_leaf_nodes: 2")
LATE = "depot_late_rate_7d removed or renamed (was DOUBLE)"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in a git repository, with one commit."""
    root = tmp_path_factory.mktemp("reviewed")
    project = parcels_project(root, module="reviewed_shop")
    declare(project, "parcels", SOURCE + VIEW)
    declare(
        project,
        "parcel_delay",
        SOLUTION.replace("distance_km]\n", "distance_km]\n    - {view: depot_history}\n")
        .replace("window: 90d", "window: 60d")
        .replace("0.6}", "0.6}, slices: [depot]"),
    )
    (root / "reviewed_shop" / "definitions.py").write_text(DEFINITIONS)
    (root / ".gitignore").write_text("target/\nlogs/\ngenerated/\ndbt_packages/\n__pycache__/\n*.schema.json\n.mlops/\n")
    _git(root, "init", "--quiet", "--initial-branch=main")
    _git(root, "add", "--all")
    _git(root, "commit", "--quiet", "--message=Parcels")
    with current_project_is(root):
        yield project


@pytest.fixture(scope="module")
def production(project: Project, postgres_directory: Path, create_database: Callable[[str], str]) -> Iterator[Lake]:
    """The lake of the project as main builds it. The commands of this module read it by a role that has no right to write."""
    home = project.root / ".mlops"
    catalog = create_database(LAKE_DATABASE)
    lake = Lake(catalog, home / "lake", DUCKDB_EXTENSION_DIRECTORY)
    lake.data_directory.mkdir(parents=True)
    with lake.connect(read_only=False) as connection:
        connection.execute(PARCELS)
    writer = Settings(home=home, postgres_url=f"postgresql://postgres@/?host={postgres_directory}")
    prepare(writer)
    environment = {**process_environment(writer), **dbt_profile_variables()}
    window = ["--event-time-start", "2024-01-01", "--event-time-end", "2024-04-21"]
    done = run_dbt("build", *window, directory=project.dbt_project, environment=environment)
    assert done.returncode == 0, done.stdout
    with psycopg2.connect(catalog) as database, database.cursor() as cursor:
        cursor.execute("CREATE ROLE reviewer LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reviewer")
    database.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_HOME", str(home))
        patch.setenv("MLOPS_POSTGRES_URL", f"postgresql://reviewer@/?host={postgres_directory}")
        # No registry answers there.
        patch.setenv("MLOPS_MLFLOW_URL", "http://127.0.0.1:9")
        yield lake


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def _change(project: Project, *changes: tuple[str, str, str]) -> None:
    _git(project.root, "checkout", "--quiet", ".")
    for folder, old, new in changes:
        path = project.definitions_directory / folder / "defs.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def _diff(*arguments: str) -> tuple[int, str]:
    # A person's command is a process of its own, in which Dagster reads each manifest once.
    read_manifest_path.cache_clear()
    result = CliRunner().invoke(app, ["diff", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout or result.stderr


def _answer(*arguments: str) -> dict[str, Any]:
    code, output = _diff("main", "--json", "--models", *arguments)
    assert code in (0, 2), output
    answer = json.loads(output)
    assert answer["breaks"] == (code == 2)
    answer["problems"] = {gate["name"]: gate["problems"] for gate in answer["gates"] if gate["problems"]}
    answer["tables"] = {table["table"]: table for table in answer["effects"]["data"]["tables"]}
    return answer


def _state(lake: Lake) -> str:
    """A fingerprint of the catalog, row by row, and of the files of the lake."""
    digest = hashlib.sha256()
    for path in sorted(lake.data_directory.rglob("*.parquet")):
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
    with psycopg2.connect(lake.catalog) as database, database.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t")
            digest.update(f"{table} {cursor.fetchall()}".encode())
    database.close()
    return digest.hexdigest()


def test_what_three_changes_do_together(project: Project, production: Lake, tmp_path: Path) -> None:
    _change(project, RENAMED, RELABELLED, RETUNED)
    former = _state(production)
    answer = _answer("--windows", "3", "--output", str(tmp_path / "review.md"))
    details = {f"{change['kind']} {change['name']}": " ".join(change["details"]) for change in answer["definitions"]}
    assert "training.estimator.parameters.max_iter: 50 → 2" in details["solution parcel_delay"]
    assert "INTERVAL 24 HOUR → delivered_at - sent_at > INTERVAL 12 HOUR" in details["solution parcel_delay"]
    assert "- depot_late_rate_7d, + depot_late_share_7d" in details["asset features/depot_history"]
    assert "code_version" in details["asset parcel_delay/spine"]
    names = [name.rpartition(".")[2] for name in answer["dbt"]["modified"]]
    assert sorted(names) == ["depot_history", "parcel_delay_spine"]
    assert answer["problems"] == {"contracts": [f"depot_history version 1: {LATE}"]}

    # The rows of the last three whole weeks, and no others.
    spine, view = answer["tables"]["parcel_delay.spine"], answer["tables"]["features.depot_history"]
    assert (spine["rows_before"], spine["rows_after"], spine["added"], spine["removed"]) == (21 * 60, 21 * 60, 0, 0)
    columns = {column["name"]: column for column in spine["columns"]}
    assert [name for name, column in columns.items() if column["changed"]] == ["is_late"]
    assert columns["is_late"]["after"]["mean"] > columns["is_late"]["before"]["mean"] + 0.2
    assert view["renamed"] == [["depot_late_rate_7d", "depot_late_share_7d"]]
    assert (view["added"], view["removed"], view["changed"]) == (0, 0, 0)

    # Both were trained for the Monday with which the windows begin, and judged on what was sent from then on.
    [model] = answer["effects"]["models"]
    assert (model["trained"], model["end"], model["rows"], model["obstacle"]) == ("2024-03-25", "2024-04-15", 21 * 60, "")
    assert model["relabelled"] == columns["is_late"]["changed"]
    slices = {(part["column"], part["value"]) for part in model["slices"]}
    assert {("window", "2024-03-25"), ("window", "2024-04-08"), ("depot", "north")} <= slices
    assert "does not answer" in model["champion_obstacle"]
    assert (tmp_path / "review_files" / "parcel_delay.png").read_bytes().startswith(b"\x89PNG")
    report = (tmp_path / "review.md").read_text()
    assert report.startswith("<!-- mlops diff -->\n# Breaks: contracts")
    assert f"| depot_history | 1 | {LATE} | parcel_delay |" in report
    assert "`depot_late_rate_7d` was renamed `depot_late_share_7d`: every value is the same." in report

    assert _state(production) == former
    changed = _git(project.root, "status", "--porcelain").split()[1::2]
    assert changed == ["reviewed_shop/defs/parcel_delay/defs.yaml", "reviewed_shop/defs/parcels/defs.yaml"]


def test_each_change_alone(project: Project, production: Lake) -> None:
    _change(project, RENAMED)
    renamed = _answer()
    assert renamed["problems"] == {"contracts": [f"depot_history version 1: {LATE}"]}
    assert not any(table["changed"] for table in renamed["tables"].values())
    [model] = renamed["effects"]["models"]
    assert {change["verdict"] for change in model["metrics"]} == {"no difference"}

    _change(project, RELABELLED)
    relabelled = _answer()
    assert relabelled["problems"] == {}
    assert list(relabelled["tables"]) == ["parcel_delay.spine"]
    assert relabelled["effects"]["models"][0]["relabelled"] > 0

    _change(project, WEAKENED)
    weakened = _answer()
    assert (list(weakened["tables"]), weakened["effects"]["models"][0]["relabelled"]) == ([], 0)
    assert weakened["problems"]["performance"][0].startswith("parcel_delay: roc_auc 0.")
    assert _answer("--allow", "performance")["breaks"] is False

    _change(project)
    nothing = _answer()
    assert (nothing["definitions"], nothing["tables"], nothing["effects"]["models"]) == ([], {}, [])


def test_a_revision_that_does_not_exist_and_a_gate_that_does_not(project: Project, production: Lake) -> None:
    assert _diff("no_such_branch")[0] == 1
    assert "contracts" in _diff("main", "--allow", "contract")[1]


def test_the_lake_may_be_in_object_storage(
    project: Project, production: Lake, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in production.data_directory.rglob("*.parquet"):
        store.put(f"team/lake/{path.relative_to(production.data_directory)}", path.read_bytes())
    with psycopg2.connect(production.catalog) as database, database.cursor() as cursor:
        cursor.execute("UPDATE ducklake_metadata SET value = 's3://parcels/team/lake/' WHERE key = 'data_path' AND scope IS NULL")
    database.close()
    production.data_directory.rename(production.data_directory.with_name("moved"))
    for name, value in {**store.environment, "MLOPS_STORAGE": "s3://parcels/team", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    _change(project, RELABELLED)
    former, objects = _state(production), {name: store.read(name) for name in store.names("")}
    code, output = _diff("main", "--json", "--data", "--windows", "1")
    assert code == 0, output
    [spine] = json.loads(output)["effects"]["data"]["tables"]
    assert (spine["table"], spine["rows_before"], spine["rows_after"]) == ("parcel_delay.spine", 7 * 60, 7 * 60)
    assert [column["name"] for column in spine["columns"] if column["changed"]] == ["is_late"]
    assert (_state(production), {name: store.read(name) for name in store.names("")}) == (former, objects)
