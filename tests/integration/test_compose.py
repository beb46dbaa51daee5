"""The compose file: valid by the schema of the specification, read by podman-compose, and the same platform as the Helm chart.

No container is started here.
"""

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from dagster._config import validate_config
from dagster._core.instance.config import dagster_instance_config_schema
from helm_chart import containers, named
from ports import free_ports
from waiting import wait_for

from mlops_assets.core.settings import Settings
from mlops_assets.core.text_templates import text_templates
from mlops_assets.local.configuration import TEMPLATE_DIRECTORY, render_files
from mlops_assets.local.environment import scripts_directory
from mlops_assets.runs.slots import SLOTS_TAG, slots

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parents[2] / "deployments" / "compose"
PLATFORM = {
    "migrations": "migrations",
    "daemon": "daemon",
    "code-location": "code-location",
    "operators": "webserver",
    "viewers": "webserver",
    "mlflow": "mlflow",
    "shipper": "shipper",
    "online": "online",
    "stream": "stream",
}
"""The services that are processes of the platform, with their containers in the chart."""

PASSWORDS = (
    "POSTGRES_PASSWORD",
    "NATS_PASSWORD",
    "NATS_CALLER_PASSWORD",
    "REDIS_PASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "MLOPS_SERVING_TOKEN",
)


def podman_compose(*arguments: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """podman-compose without podman."""
    command = [scripts_directory() / "podman-compose", "--dry-run", *arguments]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, cwd=FOLDER, capture_output=True, text=True, check=False)


def variables() -> dict[str, str]:
    """Those of `.env.example`, filled in."""
    lines = [line.split("=", 1) for line in (FOLDER / ".env.example").read_text().splitlines() if re.match(r"\w+=", line)]
    return {name: value or f"canary-{name}" for name, value in lines}


@cache
def composition() -> dict[str, Any]:
    read = podman_compose("--profile", "commands", "config", variables=variables())
    assert read.returncode == 0, read.stderr
    return dict(yaml.safe_load(read.stdout))


def services() -> dict[str, dict[str, Any]]:
    return dict(composition()["services"])


def secrets_of(environment: dict[str, str]) -> set[str]:
    """The names of the variables that come from `.env` and the chart takes from a Secret."""
    return environment.keys() & {each["name"] for each in containers("small")["code-location"]["env"]}


def test_it_is_valid_by_the_schema_of_the_specification() -> None:
    command = [scripts_directory() / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_every_password_is_asked_for_and_none_is_in_the_file() -> None:
    assert set(PASSWORDS) <= variables().keys()
    for name in PASSWORDS:
        missing = podman_compose("config", variables={each: value for each, value in variables().items() if each != name})
        assert missing.returncode != 0, name
        assert name in missing.stderr + missing.stdout
    for service in yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", name):
                assert value.startswith("${"), name


def test_containers_may_do_little() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name
        assert {"memory", "cpus"} <= service["deploy"]["resources"]["limits"].keys(), name
        if name == "owner":  # it gives volumes to their users, and reaches nobody
            assert (service["user"], service["cap_add"], service["network_mode"]) == ("0:0", ["CHOWN"], "none")
        else:
            assert service["user"] not in ("0", "0:0", "root"), name
            assert "cap_add" not in service, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        ends = service["restart"] == "no"
        assert ends or "healthcheck" in service or name in ("shipper", "stream"), name


def test_each_process_is_that_of_the_chart() -> None:
    for name, container in PLATFORM.items():
        service, of_chart = services()[name], containers("production")[container]
        expected = [word for word in of_chart["args"] if word != "--read-only"] + (["--read-only"] if name == "viewers" else [])
        if name == "code-location":
            expected = [
                {"parcels.definitions": "mlops_assets.definitions", "parcels": "mlops_assets"}.get(word, word)
                for word in expected
            ]
        assert service["command"] == expected, name
        assert secrets_of(service["environment"]) == {each["name"] for each in of_chart["env"]}, name
        targets = {secret["target"] for secret in service.get("secrets", [])}
        files = {mount["mountPath"] for mount in of_chart["volumeMounts"] if mount["name"] == "files"}
        assert targets == files - {"/var/lib/mlops/callers.json"}, name
        if name != "daemon":  # which has the runs
            limits = service["deploy"]["resources"]["limits"]
            assert limits["memory"] + "i" == of_chart["resources"]["limits"]["memory"], name


def test_variables_are_those_of_the_chart() -> None:
    of_chart = named("ray", "ConfigMap", "parcels-environment")["data"]
    for name in PLATFORM:
        environment = services()[name]["environment"]
        others = environment.keys() - secrets_of(environment)
        assert others - {"MLOPS_DAGSTER_PORT"} == of_chart.keys() - {"MLOPS_ENGINE", "MLOPS_RAY_ADDRESS"}, name
        for variable in (
            "MLOPS_HOME",
            "HOME",
            "MLOPS_LISTEN_ADDRESS",
            "MLOPS_TLS_PROXY",
            "MLOPS_WARM_RUNS",
            "MLOPS_SERVING_PROCESSES",
        ):
            assert environment[variable] == of_chart[variable]
        settings = Settings.from_environment(environment)
        assert settings.listening.own_names[-4:] == ("mlflow", "operators", "viewers", "online")
        assert settings.dagster_port == (3001 if name == "viewers" else 3000)


def test_who_ends_the_processes_of_runs_sees_them() -> None:
    daemon = services()["daemon"]
    for name in ("code-location", "operators"):
        assert services()[name]["pid"] == f"container:{daemon['container_name']}"
        assert "state:/var/lib/mlops" in services()[name]["volumes"]


def test_dagster_is_configured_as_without_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_STORAGE_URL", "postgresql+psycopg2://host/dagster")
    configuration = yaml.safe_load((FOLDER / "dagster.yaml").read_text())
    assert validate_config(dagster_instance_config_schema(), configuration).success
    template = text_templates(TEMPLATE_DIRECTORY).get_template("dagster.yaml.j2")
    local = yaml.safe_load(template.render(settings=Settings(home=Path("/var/lib/mlops")), slots=slots(), slots_tag=SLOTS_TAG))
    for each in (configuration, local):
        each["storage"]["custom"]["config"].pop("postgres_url")
        runs = each["concurrency"]["runs"]
        limits = {limit["value"]: limit["limit"] for limit in runs["tag_concurrency_limits"]}
        assert runs.pop("max_concurrent_runs") == sum(limits.values())
        for limit in runs["tag_concurrency_limits"]:
            limit["limit"] = 2 if limit["value"] == "work" else limit["limit"]
    assert configuration == local
    [server] = yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"]
    assert (server["grpc_server"]["host"], str(server["grpc_server"]["port"])) == ("code-location", "4000")


def accounts(configuration: str) -> str:
    """What the users of the event stream may do, without comments, passwords, the account of its health and those of single callers."""
    text = re.sub(r"#.*|include .*", "", configuration)
    text = text[text.index("accounts {") : text.index("jetstream {\n")]
    text = re.sub(r"SYSTEM \{.*?\n  \}|system_account: SYSTEM", "", text, flags=re.DOTALL)
    return "".join(re.sub(r"password: [^ \n]+", "", text).split())


def test_the_event_stream_lets_in_whom_it_lets_in_without_containers(tmp_path: Path) -> None:
    configuration = FOLDER / "nats.conf"
    settings = Settings(home=tmp_path)
    assert accounts(configuration.read_text()) == accounts(render_files(settings)[tmp_path / "nats.conf"])
    checked = subprocess.run(
        [scripts_directory() / "nats-server", "-t", "--config", configuration],
        env=services()["nats"]["environment"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_the_online_store_wants_its_password(tmp_path: Path) -> None:
    service = services()["redis"]
    [port] = free_ports(1)
    # podman-compose keeps `$$` for podman, which takes it as `$`.
    command = [word.replace("$$", "$").replace("dir /data", f"dir {tmp_path}\nport {port}") for word in service["command"]]
    environment = {"PATH": os.environ["PATH"], **service["environment"]}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            known = redis.Redis(port=port, password=environment["REDIS_PASSWORD"])
            wait_for(lambda: _answers(known))
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port).ping()
            assert environment["REDIS_PASSWORD"] not in Path(f"/proc/{server.pid}/cmdline").read_text()
        finally:
            server.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
