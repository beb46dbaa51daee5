"""Where the secrets of an installation are after the demo: in their files, and nowhere that a person, a program or a log looks at."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import canaries
import psutil
import psycopg2
import pytest
import requests
from psycopg2 import sql
from running_stack import Demo, Platform
from waiting import wait_for

from mlops_assets.access.credentials import access_token, event_stream_caller, event_stream_platform, serving_token
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import DATABASES, LAKE_DATABASE, Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import LakeError
from mlops_assets.local.control import status
from mlops_assets.local.environment import process_environment

OWN_FILES = {
    *(
        "access_token",
        "serving_token",
        "signing_key",
        "nats_platform_password",
        "nats_caller_password",
        "nats_system_password",
        "nats.conf",
        "nats_callers.conf",
    ),
    "postgres_password",
}
"""Files of the state folder whose content is secrets."""

NEEDED = {
    "nats": set[str](),
    "mlflow": {"MLOPS_POSTGRES_URL", "MLOPS_OIDC_CLIENT_SECRET"},
    "online": {"MLOPS_SERVING_TOKEN"},
    "stream": set[str](),
    "shipper": set[str](),
    "dagster-webserver": {"MLOPS_OIDC_CLIENT_SECRET"},
}
"""The variables with canaries that a server's process has; those that run code of the project have them all."""


@pytest.fixture(scope="module")
def secrets(platform: Platform, demo: Demo) -> Iterator[dict[str, str]]:
    """Every secret of the installation by its name, after runs that succeeded, one that was made to read a secret, and vain signing in."""
    settings = platform.settings
    assets = platform.client.assets()
    table = next(key for key, asset in assets.items() if key.startswith("raw/") and asset.partitioned)
    first = platform.client.partition_keys(table)[0]
    configuration = {table: {"files": [str(settings.access_token_file)]}}
    run_id = platform.client.launch([assets[table]], first, first, configuration, purpose="test")
    wait_for(lambda: platform.client.run(run_id).finished, every=0.5)
    assert platform.mlops("open", "--no-browser").returncode == 0
    for door in (settings.dagster_url, settings.mlflow_url):
        answer = requests.get(f"{door}/.mlops/sign-in", timeout=60)
        assert "Nobody was signed in" in answer.text
        assert canaries.found_in(canaries.ALL, [answer.text, str(answer.headers)]) == set()
    name = f"canary-{uuid4().hex}"
    events = json.loads(platform.mlops("access", "add", name, "--solution", "x", "--json").stdout)["event_stream"]
    wait_for(lambda: name in settings.nats_callers_file.read_text())
    assert platform.mlops("access", "rotate", name).returncode == 0
    own = {
        "access token": access_token(settings),
        "serving token": serving_token(settings),
        "signing key": settings.signing_key_file.read_text().strip(),
        "platform's password": event_stream_platform(settings).password,
        "caller's password": event_stream_caller(settings).password,
        "password of a caller of one solution": str(urlsplit(events).password),
    }
    assert all(own.values())
    yield own | canaries.ALL
    assert platform.mlops("access", "remove", name).returncode == 0


def test_the_installation_has_every_canary(platform: Platform) -> None:
    environment = process_environment(platform.settings) | canaries.SOURCE_SECRETS
    left_out = {"password of Postgres"}  # in its file alone; quoted in the variable
    assert canaries.found_in(canaries.ALL, environment.values()) == set(canaries.ALL) - left_out


def test_no_command_line_shows_a_secret(secrets: dict[str, str]) -> None:
    processes = psutil.process_iter(["cmdline"])
    assert canaries.found_in(secrets, [" ".join(process.info["cmdline"] or []) for process in processes]) == set()


def test_a_process_gets_no_secret_that_it_does_not_need(platform: Platform, secrets: dict[str, str]) -> None:
    pids = {process["name"]: process["pid"] for process in status(platform.settings)}
    for name, needed in NEEDED.items():
        environment = psutil.Process(pids[name]).environ()
        of_platform = {variable: value for variable, value in environment.items() if variable not in canaries.SOURCE_SECRETS}
        with_secret = {variable for variable, value in of_platform.items() if canaries.found_in(secrets, [value])}
        assert with_secret == needed, name
    assert not set(psutil.Process(pids["nats"]).environ()) & set(canaries.SOURCE_SECRETS)


def test_no_file_but_their_own_holds_a_secret(platform: Platform, secrets: dict[str, str]) -> None:
    """Logs, configurations, bundles, reports, notifications, artifacts of MLflow, and what dbt writes."""
    home = platform.settings.home
    project = current_project().root / "dbt_project"
    files = [*home.rglob("*"), *(project / "logs").rglob("*"), *(project / "target").rglob("*")]
    holding = {
        str(path): names
        for path in files
        if path.is_file() and path.parent / path.name not in {home / name for name in OWN_FILES}
        if (names := canaries.found_in(secrets, [path.read_bytes().decode("latin-1")]))
    }
    assert holding == {}
    assert "problem" in platform.settings.notification_log.read_text(), "a delivery failed and was logged"


def test_no_database_holds_a_secret(platform: Platform, secrets: dict[str, str]) -> None:
    """Runs with their configuration and tags, events, MLflow's parameters and tags, trials, the lake's catalog."""
    for database in DATABASES:
        assert canaries.found_in(secrets, rows_of(platform.settings, database)) == set(), database


def test_no_table_of_the_lake_holds_a_secret(platform: Platform, secrets: dict[str, str]) -> None:
    pattern = "|".join(map(re.escape, secrets.values()))
    with platform.lake.connect(read_only=True) as connection:
        tables = connection.execute(
            """SELECT format('"{}"."{}"', schema_name, table_name), list(format('"{}"', column_name)) FROM duckdb_columns()
            WHERE database_name = 'lake' AND NOT internal AND (data_type LIKE '%VARCHAR%' OR data_type LIKE '%JSON%') GROUP BY ALL"""
        ).fetchall()
        assert len(tables) > 20
        for table, columns in tables:
            query = f"SELECT count(*) FROM {table} WHERE regexp_matches(concat_ws(' ', {', '.join(columns)}), $1)"
            assert connection.execute(query, [pattern]).fetchone() == (0,), table


def test_what_cannot_be_reached_is_said_without_its_password(platform: Platform, tmp_path: Path) -> None:
    address = platform.settings.postgres_url
    assert address
    away = replace(platform.settings, home=tmp_path, postgres_url=f"{address.partition('?')[0]}?host={tmp_path}")
    with pytest.raises(LakeError, match="The lake's catalog cannot be opened") as error:
        Lake.from_settings(away).connect(read_only=True)
    causes = [str(error.value), str(error.value.__cause__)]
    answer = Platform(away).mlops("backup", str(tmp_path / "backup"))
    assert answer.returncode == 1
    assert canaries.found_in(canaries.ALL, [*causes, answer.stdout, answer.stderr]) == set()
    shown = platform.mlops("sql", "SELECT * FROM duckdb_databases()", "--json").stdout
    assert "passfile" in shown
    assert canaries.found_in(canaries.ALL, [shown]) == set()


def rows_of(settings: Settings, database: str) -> Iterator[str]:
    """Every row of every table, as text."""
    connection = psycopg2.connect(settings.postgres_connection_string(database))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        assert tables or database not in (LAKE_DATABASE, "dagster", "mlflow")
        for table in tables:
            cursor.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            yield from (row for (row,) in cursor.fetchall())
    connection.close()
