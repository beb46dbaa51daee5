import os
from pathlib import Path

import pytest

from mlops_assets.core.listening import Listening
from mlops_assets.core.settings import Settings
from mlops_assets.core.sign_on import SignOn
from mlops_assets.local.environment import process_environment, scripts_directory, withheld_variables
from mlops_assets.local.services import services


def test_a_child_reads_the_same_settings() -> None:
    settings = Settings(
        home=Path("/srv/mlops"),
        listening=Listening(names=("a.example",), authorities=Path("/ca")),
        nats_url="nats://host:4",
        sign_on=SignOn(issuer="https://login.example.org", client_id="mlops", client_secret="secret", viewers=("staff",)),
        backup_recipients=("age1a", "age1b"),
        dagster_port=1,
        mlflow_port=2,
        nats_port=3,
        serving_port=4,
        serving_processes=5,
        serving_token="secret",
    )
    assert Settings.from_environment(process_environment(settings)) == settings


def test_a_server_that_is_not_set_does_not_come_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_POSTGRES_URL", "postgresql://elsewhere/db")
    assert process_environment(Settings(home=Path("/srv")))["MLOPS_POSTGRES_URL"] == ""


def test_bytecode_is_written_whatever_the_caller_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in process_environment(Settings(home=Path("/srv")))


def test_what_the_tools_read() -> None:
    environment = process_environment(Settings(home=Path("/srv"), mlflow_port=5001))
    assert environment["DAGSTER_HOME"] == "/srv/dagster"
    assert environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5001"
    assert environment["MLOPS_LAKE_CATALOG"] == "dbname=lake user=postgres host=/srv/postgres"
    assert environment["MLOPS_LAKE_DATA"] == "/srv/lake"
    assert environment["PATH"].split(os.pathsep)[0] == str(scripts_directory())


def test_each_server_reads_its_settings_without_the_secrets_that_it_does_not_need() -> None:
    sign_on = SignOn(issuer="https://login.example.org", client_id="mlops", client_secret="secret", viewers=("staff",))
    settings = Settings(home=Path("/srv/mlops"), sign_on=sign_on, serving_token="secret", postgres_url="postgresql://host/db")
    for service in services(settings):
        environment = process_environment(settings) | dict.fromkeys(withheld_variables(service.name), "")
        read = Settings.from_environment(environment)
        assert (read.home, read.sign_on and read.sign_on.issuer) == (settings.home, sign_on.issuer)


def test_the_secret_of_the_openid_client_is_for_the_two_doors_alone() -> None:
    assert [service for service in ("mlflow", "dagster-webserver", "online", "stream", "shipper") if _withheld(service)] == [
        "online",
        "stream",
        "shipper",
    ]


def _withheld(service: str) -> bool:
    return "MLOPS_OIDC_CLIENT_SECRET" in withheld_variables(service)
