from pathlib import Path

import psycopg2.extensions
import pytest
from sqlalchemy.engine import make_url

from mlops_assets.core.environment_files import read_environment_file
from mlops_assets.core.listening import Listening
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings, sensor_interval


def test_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.home == current_project().root / ".mlops"
    assert (settings.dagster_port, settings.mlflow_port, settings.nats_port, settings.serving_port) == (3000, 5000, 4222, 8000)
    assert settings.nats_server_url == "nats://127.0.0.1:4222"


def test_every_variable_is_read() -> None:
    settings = Settings.from_environment(
        {
            "MLOPS_HOME": "/srv/mlops",
            "MLOPS_LISTEN_ADDRESS": "::1",
            "MLOPS_POSTGRES_URL": "postgresql://host/db",
            "MLOPS_NATS_URL": "nats://host:4",
            "MLOPS_MLFLOW_URL": "http://host:5000",
            "MLOPS_DAGSTER_URL": "http://host:3000",
            "MLOPS_SERVING_URL": "http://host:8000",
            "MLOPS_ENGINE": "ray",
            "MLOPS_RAY_ADDRESS": "auto",
            "MLOPS_TASK_MEMORY_GB": "8",
            "MLOPS_PART_VALUES": "1000",
            "MLOPS_STEPS": "pods",
            "MLOPS_DAGSTER_PORT": "1",
            "MLOPS_MLFLOW_PORT": "2",
            "MLOPS_NATS_PORT": "3",
            "MLOPS_SERVING_PORT": "4",
            "MLOPS_SERVING_PROCESSES": "5",
            "MLOPS_SERVING_TOKEN": "secret",
            "MLOPS_SENSOR_SECONDS": "6",
            "MLOPS_BACKUP_FOLDER": "/srv/backups",
            "MLOPS_BACKUP_RECIPIENTS": "age1a age1b",
            "MLOPS_BUNDLE_STORE": "my_team.stores:bucket",
            "MLOPS_KEPT_BUNDLES": "7",
            "MLOPS_KEPT_SNAPSHOT_DAYS": "400",
            "MLOPS_KEPT_TRACE_DAYS": "1000",
            "MLOPS_FILE_GRACE_HOURS": "48",
            "MLOPS_STORAGE": "s3://models/team-1/",
            "MLOPS_KEPT_RUN_DAYS": "90",
            "MLOPS_KEPT_REPORT_DAYS": "91",
            "MLOPS_OPENLINEAGE_URL": "http://receiver",
            "MLOPS_OPENLINEAGE_API_KEY": "secret",
        }
    )
    assert settings == Settings(
        home=Path("/srv/mlops"),
        listening=Listening(address="::1"),
        postgres_url="postgresql://host/db",
        nats_url="nats://host:4",
        mlflow_server="http://host:5000",
        dagster_server="http://host:3000",
        serving_server="http://host:8000",
        engine="ray",
        ray_address="auto",
        steps="pods",
        task_memory_gb=8,
        part_values=1000,
        dagster_port=1,
        mlflow_port=2,
        nats_port=3,
        serving_port=4,
        serving_processes=5,
        serving_token="secret",
        sensor_seconds=6,
        backup_folder=Path("/srv/backups"),
        backup_recipients=("age1a", "age1b"),
        bundle_store="my_team.stores:bucket",
        kept_bundles=7,
        kept_snapshot_days=400,
        kept_trace_days=1000,
        file_grace_hours=48,
        storage="s3://models/team-1",
        kept_run_days=90,
        kept_report_days=91,
        openlineage_url="http://receiver",
        openlineage_api_key="secret",
    )
    assert "secret" not in repr(settings)
    assert settings.nats_server_url == "nats://host:4"
    assert settings.mlflow_url == "http://host:5000"


def test_empty_variables_count_as_unset() -> None:
    assert Settings.from_environment({"MLOPS_POSTGRES_URL": "", "MLOPS_DAGSTER_PORT": ""}) == Settings.from_environment({})


def test_a_wrong_number_of_processes_names_the_variable() -> None:
    with pytest.raises(ValueError, match="MLOPS_SERVING_PROCESSES='many' is no count: set it to a number from 1 to 64"):
        Settings.from_environment({"MLOPS_SERVING_PROCESSES": "many"})


def test_no_sensor_waits_longer_than_the_environment_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLOPS_SENSOR_SECONDS", raising=False)
    assert [sensor_interval(seconds) for seconds in (10, 30)] == [10, 30]
    monkeypatch.setenv("MLOPS_SENSOR_SECONDS", "15")
    assert [sensor_interval(seconds) for seconds in (10, 30)] == [10, 15]


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "3000.5"])
def test_a_wrong_port_names_the_variable(text: str) -> None:
    with pytest.raises(ValueError, match=f"MLOPS_MLFLOW_PORT='{text}' is not a port"):
        Settings.from_environment({"MLOPS_MLFLOW_PORT": text})


@pytest.mark.parametrize(
    ("postgres_url", "expected"),
    [
        (None, {"dbname": "lake", "user": "postgres", "host": "HOME/postgres"}),
        (
            "postgresql://me:p%40ss%20w'ord%5C@db.example:5433/main?sslmode=require",
            {
                "dbname": "lake",
                "user": "me",
                "host": "db.example",
                "port": "5433",
                "sslmode": "require",
                "passfile": "HOME/postgres_password",
            },
        ),
        ("postgresql://postgres@/main?host=/run/postgres", {"dbname": "lake", "user": "postgres", "host": "/run/postgres"}),
    ],
)
def test_connection_strings_mean_what_libpq_reads(postgres_url: str | None, expected: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "my mlops", postgres_url=postgres_url)
    expected = {name: value.replace("HOME", str(settings.home)) for name, value in expected.items()}
    assert psycopg2.extensions.parse_dsn(settings.postgres_connection_string("lake")) == expected
    url = make_url(settings.sqlalchemy_url("lake"))
    assert url.drivername == "postgresql+psycopg2"
    assert url.database == "lake"
    assert (url.host or url.query["host"]) == expected["host"]
    assert (url.username, url.password or "") == (expected["user"], "")
    assert url.query.get("passfile") == expected.get("passfile")


@pytest.mark.parametrize(
    ("postgres_url", "database"), [(None, "postgres"), ("postgresql://host", "postgres"), ("postgresql://host/main", "main")]
)
def test_the_maintenance_database_exists_before_ours(postgres_url: str | None, database: str) -> None:
    settings = Settings(home=Path("/srv"), postgres_url=postgres_url)
    assert psycopg2.extensions.parse_dsn(settings.postgres_maintenance_connection_string())["dbname"] == database


def test_the_example_file_shows_every_variable_with_its_default(tmp_path: Path) -> None:
    uncommented = [
        line.removeprefix("# ") for line in (current_project().root / ".env.example").read_text().splitlines() if "=" in line
    ]
    file = tmp_path / ".env"
    file.write_text("\n".join(line for line in uncommented if line.startswith("MLOPS_")))
    variables = read_environment_file(file)
    assert set(variables) == {
        "MLOPS_PROJECT", "MLOPS_ENV", "MLOPS_HOME",
        "MLOPS_POSTGRES_URL", "MLOPS_NATS_URL", "MLOPS_MLFLOW_URL", "MLOPS_REDIS_URL", "MLOPS_DAGSTER_URL", "MLOPS_SERVING_URL",
        "MLOPS_ENGINE", "MLOPS_RAY_ADDRESS", "MLOPS_TASK_MEMORY_GB", "MLOPS_PART_VALUES",
        "MLOPS_NOTIFY_URLS", "MLOPS_STORAGE",
        "MLOPS_LISTEN_ADDRESS", "MLOPS_SERVER_NAMES", "MLOPS_TLS_CERTIFICATE", "MLOPS_TLS_KEY", "MLOPS_TLS_CA", "MLOPS_TLS_PROXY",
        "MLOPS_OIDC_ISSUER", "MLOPS_OIDC_CLIENT_ID", "MLOPS_OIDC_CLIENT_SECRET", "MLOPS_OIDC_ROLE_CLAIM", "MLOPS_OIDC_VIEWERS",
        "MLOPS_OIDC_OPERATORS", "MLOPS_OIDC_SCOPES", "MLOPS_OIDC_SESSION_HOURS",
        "MLOPS_DAGSTER_PORT", "MLOPS_MLFLOW_PORT", "MLOPS_NATS_PORT",
        "MLOPS_SERVING_PORT", "MLOPS_SERVING_PROCESSES", "MLOPS_SERVING_TOKEN",
        "MLOPS_SENSOR_SECONDS", "MLOPS_WARM_RUNS", "MLOPS_STEPS", "MLOPS_DURABILITY", "MLOPS_BACKUP_FOLDER", "MLOPS_BACKUP_RECIPIENTS",
        "MLOPS_BUNDLE_STORE", "MLOPS_KEPT_BUNDLES",
        "MLOPS_KEPT_SNAPSHOT_DAYS", "MLOPS_KEPT_TRACE_DAYS", "MLOPS_FILE_GRACE_HOURS", "MLOPS_KEPT_RUN_DAYS",
        "MLOPS_KEPT_REPORT_DAYS",
        "MLOPS_OPENLINEAGE_URL", "MLOPS_OPENLINEAGE_API_KEY",
    }  # fmt: skip
    ports = Settings.from_environment({name: value for name, value in variables.items() if name.endswith("_PORT")})
    assert ports == Settings.from_environment({})


@pytest.mark.parametrize(("text", "expected"), [("", True), ("on", True), ("off", False)])
def test_runs_are_forked_unless_switched_off(text: str, expected: bool) -> None:
    assert Settings.from_environment({"MLOPS_HOME": "/srv", "MLOPS_WARM_RUNS": text}).warm_runs is expected


def test_a_durability_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="MLOPS_DURABILITY='disk' is not fsync or buffered"):
        Settings.from_environment({"MLOPS_HOME": "/srv", "MLOPS_DURABILITY": "disk"})


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(ValueError, match="MLOPS_WARM_RUNS='maybe' is neither on nor off"):
        Settings.from_environment({"MLOPS_HOME": "/srv", "MLOPS_WARM_RUNS": "maybe"})
