"""Kubernetes manifests by the schemas of its API, and a run launched with them, to a server that takes what Dagster sends to the API.

No Kubernetes runs here: what a cluster makes of them is not tested.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus
from dagster._config import validate_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.test_utils import create_run_for_test, instance_for_test
from http_servers import running
from run_instances import CODE, REMOTE

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.configuration import RunsInPods
from mlops_assets.local.manifests import render_manifests
from mlops_assets.runs.recovery import recover_runs
from mlops_assets.runs.stuck import find_blockages

PODS = RunsInPods(image="registry.example.org/parcels:1.4.2", namespace="parcels")
SETTINGS = Settings(
    home=Path("/home/anna/.mlops"),
    postgres_url="postgresql://mlops:hidden@db.example.org/postgres",
    nats_url="nats://platform:hidden@nats.example.org:4222",
    mlflow_server="http://mlflow.example.org:5000",
)
VERSIONS = ("1.30", "1.35", kubernetes_validate.latest_version())


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render_manifests(SETTINGS, PODS, storage="20Gi")))


def dagster_configuration(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    [text] = [each["data"]["dagster.yaml"] for each in manifests if each["metadata"]["name"] == PODS.instance]
    return dict(yaml.safe_load(text))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_accepts_every_manifest(manifests: list[dict[str, Any]], version: str) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert {manifest["kind"] for manifest in manifests} == {
        "ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim", "ConfigMap",
    }  # fmt: skip


def test_pods_find_the_files_of_the_state_in_object_storage() -> None:
    assert "MLOPS_STORAGE" not in render_manifests(SETTINGS, PODS, storage="20Gi")
    text = render_manifests(replace(SETTINGS, storage="s3://models/parcels"), PODS, storage="20Gi")
    assert {"MLOPS_STORAGE": "s3://models/parcels"}.items() <= {
        name: value for each in yaml.safe_load_all(text) if each["kind"] == "ConfigMap" for name, value in each["data"].items()
    }.items()


def test_no_secret_is_in_them(manifests: list[dict[str, Any]]) -> None:
    assert "hidden" not in json.dumps(manifests)


def test_dagster_accepts_its_configuration(manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PODS.storage_variable, "postgresql+psycopg2://host/dagster")
    result = validate_config(dagster_instance_config_schema(), dagster_configuration(manifests))
    assert result.success, result.errors


def test_servers_of_this_machine_are_named() -> None:
    with pytest.raises(StackError, match="MLOPS_POSTGRES_URL, MLOPS_MLFLOW_URL must name others"):
        render_manifests(Settings(home=Path("/x"), nats_url="nats://host"), PODS, storage="20Gi")


class _Api(ThreadingHTTPServer):
    """Takes what is posted, and answers with it, as the API does."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Api

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, json.loads(body)))
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[_Api]:
    with running(_Api()) as server:
        yield server


@pytest.fixture
def instance(api: _Api, manifests: list[dict[str, Any]], tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with the launcher of the manifests, for whom the API is at another address."""
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}], "current-context": "x"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **kubeconfig}))
    launcher = dagster_configuration(manifests)["run_launcher"]
    launcher["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")}
    with instance_for_test(overrides={"run_launcher": launcher}) as created:
        yield created


def test_a_run_gets_a_pod_with_state_variables_and_secrets(api: _Api, instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, job_name="some", remote_job_origin=REMOTE, job_code_origin=CODE)
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    [(path, job)] = api.posted
    assert path.startswith("/apis/batch/v1/namespaces/parcels/jobs")
    for version in VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == PODS.image
    assert run.run_id in " ".join(container["args"])
    assert {"name": "state", "persistentVolumeClaim": {"claimName": PODS.state}} in pod["volumes"]
    assert {"name": "state", "mountPath": "/var/lib/mlops"} in container["volumeMounts"]
    assert container["envFrom"] == [{"configMapRef": {"name": PODS.environment}}, {"secretRef": {"name": PODS.secrets}}]
    # A pod that is started again beside a run that Dagster tries again would be two runs at once.
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


def test_a_run_in_a_pod_is_not_taken_for_one_whose_process_is_gone(instance: DagsterInstance) -> None:
    run = create_run_for_test(
        instance, job_name="some", remote_job_origin=REMOTE, job_code_origin=CODE, status=DagsterRunStatus.STARTED
    )
    assert recover_runs(instance, served=True) == []
    assert find_blockages(instance) == []
    assert instance.get_run_by_id(run.run_id).status is DagsterRunStatus.STARTED
