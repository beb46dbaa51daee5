import configparser
import dataclasses
from pathlib import Path

import pytest
import yaml

from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.local import configuration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "50% mine", dagster_port=3100, mlflow_port=5100, nats_port=4300)


def sections(settings: Settings) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(configuration.render_files(settings)[settings.supervisor_configuration])
    return parser


def test_supervisor_runs_every_server(settings: Settings) -> None:
    programs = {name.removeprefix("program:") for name in sections(settings).sections() if name.startswith("program:")}
    dagster = {"code-location", "fork-server", "dagster-webserver", "dagster-daemon"}
    assert programs == {"postgres", "nats", "mlflow", "online", "stream", "shipper"} | dagster


def test_without_warm_runs_nothing_is_forked(settings: Settings) -> None:
    assert "program:fork-server" not in sections(dataclasses.replace(settings, warm_runs=False)).sections()


def test_servers_elsewhere_are_not_run(settings: Settings) -> None:
    own = Settings(
        home=settings.home, postgres_url="postgresql://host/db", nats_url="nats://host:4222", mlflow_server="http://host"
    )
    assert {"program:postgres", "program:nats", "program:mlflow"} & set(sections(own).sections()) == set()


def test_a_home_with_spaces_and_per_cent_signs_survives(settings: Settings) -> None:
    parser = sections(settings)
    assert parser["unix_http_server"]["file"] == str(settings.supervisor_socket).replace("%", "%%")
    assert f"'{settings.postgres_directory}'".replace("%", "%%") in parser["program:postgres"]["command"]


def test_programs_of_others_name_an_environment_in_their_logs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ENV", "prod")
    assert sections(settings)["program:postgres"]["command"].endswith(" -c 'log_line_prefix=[prod] %%m [%%p] '")
    assert 'server_name: "mlops-prod"' in configuration.render_files(settings)[settings.home / "nats.conf"]


def test_dagster_yaml_is_what_dagster_accepts(tmp_path: Path) -> None:
    from dagster._config import validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    settings = Settings(home=tmp_path)
    instance = yaml.safe_load(configuration.render_files(settings)[settings.dagster_home / "dagster.yaml"])
    result = validate_config(dagster_instance_config_schema(), instance)
    assert result.success, result.errors
    assert instance["telemetry"] == {"enabled": False}
    assert instance["freshness"] == {"enabled": True}
    assert instance["run_monitoring"]["enabled"] is True
    assert instance["storage"]["custom"]["config"]["postgres_url"] == settings.sqlalchemy_url("dagster")


def test_both_workspaces_name_the_same_location(settings: Settings) -> None:
    shared = yaml.safe_load(configuration.render_files(settings)[settings.dagster_home / "workspace.yaml"])
    plain = yaml.safe_load((current_project().root / "workspace.yaml").read_text())
    assert shared["load_from"][0]["grpc_server"]["socket"] == str(settings.code_location_socket)
    assert shared["load_from"][0]["grpc_server"]["location_name"] == plain["load_from"][0]["python_module"]["location_name"]


def test_changed_files_are_found(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    files = configuration.render_files(settings)
    assert configuration.changed_files(files) == list(files)
    configuration.write_files(files)
    assert configuration.changed_files(files) == []
    other = configuration.render_files(Settings(home=tmp_path, mlflow_port=5001, nats_port=4333))
    assert configuration.changed_files(other) == [settings.supervisor_configuration, tmp_path / "nats.conf"]


@pytest.mark.parametrize("name", ["supervisord.conf", "nats.conf", "dagster/dagster.yaml", "dagster/workspace.yaml"])
def test_files_that_may_hold_a_password_are_the_owners_alone(tmp_path: Path, name: str) -> None:
    configuration.write_files(configuration.render_files(Settings(home=tmp_path)))
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
