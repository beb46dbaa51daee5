"""dbt models whose rows leave the window of the run, on a small project with the package of the platform and a real lake."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dbt_lake import call_dbt

from mlops_assets.core.project import current_project
from mlops_assets.features.dbt_package import link_dbt_package
from mlops_assets.lake.lake import Lake

pytestmark = pytest.mark.long

MakeLake = Callable[[], Lake]

# 4 of the 40 events of a day in UTC are of the next day in Tokyo.
EVENTS = """
CREATE SCHEMA raw;
CREATE TABLE raw.events AS
SELECT day::DATE AS event_date, date_diff('day', DATE '2024-01-01', day::DATE) * 40 + number AS event_id,
    timezone('UTC', day + CASE WHEN number < 4 THEN INTERVAL 20 HOUR ELSE INTERVAL 3 HOUR END) AS happened_at
FROM generate_series(TIMESTAMP '2024-01-09', TIMESTAMP '2024-01-12', INTERVAL 1 DAY) days(day), range(40) numbers(number)
"""
LOCAL_DATE = "(happened_at at time zone 'Asia/Tokyo')::date"
FILTERED_TOO_EARLY = (
    f"select event_id, {LOCAL_DATE} as event_date from lake.raw.events where {{{{ mlops.in_window('event_date') }}}}"
)
MODELS = {
    "leaves_window": FILTERED_TOO_EARLY,
    "leaves_window_later": (
        "{% if is_incremental() %}" + FILTERED_TOO_EARLY + "{% else %}"
        "select event_id, event_date from lake.raw.events where {{ mlops.in_window('event_date') }}{% endif %}"
    ),
    "has_no_date": "select event_id, case when event_id % 40 > 0 then event_date end as event_date from lake.raw.events "
    "where {{ mlops.in_window('event_date') }}",
    "local": "select event_id, {{ mlops.business_date('happened_at') }} as event_date from lake.raw.events "
    "where {{ mlops.in_window('event_date', history_days=1) }} and {{ mlops.in_window(mlops.business_date('happened_at')) }}",
    # Each event is of its own day and of the next one: no window has a key twice, the table has.
    "on_two_days": "select event_id, event_date + late::integer as event_date from lake.raw.events, range(2) days(late) "
    "where {{ mlops.in_window('event_date + late::integer') }}",
    "merged": "{{ config(incremental_strategy='merge', unique_key='event_id') }} select event_id, event_date from lake.raw.events",
    "whole": "{{ config(materialized='table') }} select event_id, event_date from lake.raw.events where {{ mlops.in_window('event_date') }}",
}
MODEL_YAML = """
- name: {name}
  config: {{schema: local, meta: {{partition_column: event_date, time_zone: Asia/Tokyo}}}}
  columns:
  - {{name: event_id, data_type: bigint}}
  - {{name: event_date, data_type: date}}
  data_tests:
  - mlops.unique_combination: {{arguments: {{columns: [event_id]}}}}
"""


class Project:
    """The small dbt project on its lake."""

    def __init__(self, lake: Lake, folder: Path):
        self.lake, self.folder = lake, folder
        shutil.copy(current_project().dbt_project / "dbt_project.yml", folder)
        link_dbt_package(folder)
        models = folder / "models" / "solutions"
        models.mkdir(parents=True)
        for name, query in MODELS.items():
            (models / f"{name}.sql").write_text(query)
        declared = "".join(MODEL_YAML.format(name=name) for name in MODELS)
        (models / "models.yml").write_text(f"models:\n{declared}")
        with lake.connect(read_only=False) as connection:
            connection.execute(EVENTS)

    def build(self, day: int, *arguments: str) -> str:
        """What dbt prints when it builds and tests all models, or those of `arguments`, for one day of January 2024."""
        window = ["--event-time-start", f"2024-01-{day:02}", "--event-time-end", f"2024-01-{day + 1:02}"]
        return call_dbt(self.lake, self.folder, self.folder / "target", "build", *window, *arguments).stdout

    def tables(self) -> dict[str, dict[int, int]]:
        """Rows by day of the month of each table."""
        with self.lake.connect(read_only=True) as connection:
            names = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'local' ORDER BY 1").fetchall()
            return {
                name: dict(
                    connection.execute(f"SELECT day(event_date), count(*) FROM local.{name} GROUP BY 1 ORDER BY 1").fetchall()
                )
                for (name,) in names
            }


@pytest.fixture(scope="module")
def project(make_lake: MakeLake, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(make_lake(), tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def outputs(project: Project) -> tuple[str, str]:
    """What dbt printed for the 10th and then for the 11th."""
    return project.build(10), project.build(11)


def test_rows_outside_the_window_are_refused_at_the_first_build_and_later(project: Project, outputs: tuple[str, str]) -> None:
    first, second = outputs
    for output, day, model in ((first, 10, "leaves_window"), (second, 11, "leaves_window_later")):
        assert (
            f"4 rows of {model} lie outside the window 2024-01-{day}..2024-01-{day + 1} (end exclusive) of event_date: 0 have none, "
            f"the others are from 2024-01-{day + 1} to 2024-01-{day + 1}. End models/solutions/{model}.sql with "
            "`where {{ mlops.in_window('event_date') }}`"
        ) in output
    tables = project.tables()
    assert "leaves_window" not in tables
    assert tables["leaves_window_later"] == {10: 40}
    assert "1 rows of has_no_date lie outside the window" in first
    assert "has_no_date" not in tables


def test_a_model_that_keeps_to_its_window_has_the_same_rows_after_a_second_run(
    project: Project, outputs: tuple[str, str]
) -> None:
    before = project.tables()["local"]
    assert before == {10: 40, 11: 40}
    assert "Completed successfully" in project.build(10, "--select", "local")
    assert project.tables()["local"] == before


def test_a_key_that_two_windows_share_fails_the_test_of_uniqueness(outputs: tuple[str, str]) -> None:
    first, second = outputs
    name = "mlops_unique_combination_on_two_days_event_id"
    assert f"PASS {name}" in first
    assert f"FAIL 40 {name}" in second
    assert "PASS mlops_unique_combination_local_event_id" in second


def test_a_strategy_that_does_not_replace_windows_is_refused(project: Project, outputs: tuple[str, str]) -> None:
    assert "merged: incremental_strategy merge does not replace the window of a run exactly" in outputs[0]
    assert "merged" not in project.tables()


def test_a_table_is_built_whole_in_a_run_of_a_window(project: Project, outputs: tuple[str, str]) -> None:
    assert project.tables()["whole"] == {9: 40, 10: 40, 11: 40, 12: 40}


def test_a_full_refresh_of_a_window_is_refused(project: Project, outputs: tuple[str, str]) -> None:
    before = project.tables()["local"]
    assert "local: a full refresh of a window would lose" in project.build(11, "--select", "local", "--full-refresh")
    assert project.tables()["local"] == before
