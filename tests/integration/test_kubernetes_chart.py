"""The Helm chart: rendered by helm, validated by the schemas of Kubernetes; a run is launched with it, to a server that takes what is sent.

No Kubernetes runs here: what a cluster makes of it is not tested.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus
from dagster._cli.api import grpc_command
from dagster._config import validate_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.test_utils import create_run_for_test, instance_for_test
from helm_chart import CHART, EXAMPLES, containers, helm, named, objects, pods
from http_servers import running
from run_instances import CODE, REMOTE
from typer.main import get_command
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.clients.event_stream import REQUESTS, scorer_consumer
from mlops_assets.components.step_executor import step_executor
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.core.text_templates import text_templates
from mlops_assets.local.configuration import TEMPLATE_DIRECTORY
from mlops_assets.local.environment import scripts_directory, withheld_variables
from mlops_assets.local.environment_owner import TABLE
from mlops_assets.local.postgres import has_table, query_value
from mlops_assets.local.scratch_postgres import scratch_postgres
from mlops_assets.local.services import MLFLOW, ONLINE, SHIPPER, STREAM, WEBSERVER
from mlops_assets.runs.recovery import recover_runs
from mlops_assets.runs.slots import SLOTS_TAG, WORK, slots
from mlops_assets.runs.stuck import find_blockages
from mlops_assets.schema.resources_section import StageResources
from mlops_assets.stages.pod_tags import pod_tags

pytestmark = pytest.mark.long

VERSIONS = ("1.30", "1.35", kubernetes_validate.latest_version())
OTHERS = {"ScaledObject", "RayCluster"}
"""Kinds of KEDA and KubeRay, of which there are no schemas."""


def dagster_configuration(example: str) -> dict[str, Any]:
    return dict(yaml.safe_load(named(example, "ConfigMap", "parcels-dagster")["data"]["dagster.yaml"]))


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_finds_no_fault(example: str) -> None:
    linted = helm("lint", str(CHART), "--strict", "--values", str(CHART / "examples" / f"{example}.yaml"))
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_api_accepts_every_object(example: str, version: str) -> None:
    for each in objects(example):
        if each["kind"] not in OTHERS:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_pods_may_do_little(example: str) -> None:
    for name, pod in pods(example).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]}), name
            assert container["resources"]["limits"]["memory"], name
            # No program stands in the place of the image's own beginning, which sets the variables of the platform.
            assert "command" not in container, name
    [binding] = [each for each in objects(example) if each["kind"] == "RoleBinding"]
    launchers = {"parcels-daemon", "parcels-operators"} | ({"parcels-runs"} if example == "production" else set())
    assert {subject["name"] for subject in binding["subjects"]} == launchers
    assert not [each for each in objects(example) if each["kind"].startswith("ClusterRole")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_secrets_are_named_and_each_process_has_those_that_it_needs(example: str) -> None:
    assert not [each for each in objects(example) if each["kind"] == "Secret"]
    for name, process in (
        ("mlflow", MLFLOW),
        ("online", ONLINE),
        ("stream", STREAM),
        ("shipper", SHIPPER),
        ("webserver", WEBSERVER),
        ("daemon", "dagster-daemon"),
    ):
        container = containers(example)[name]
        given = {variable["name"] for variable in container["env"]}
        withheld = set(withheld_variables(process))
        if process == WEBSERVER:
            withheld -= {"MLOPS_POSTGRES_URL"}  # on one machine the password is in a file that it shares with others
        assert given.isdisjoint(withheld), name
        every = {variable["name"] for variable in containers(example)["code-location"]["env"]}
        assert {variable for variable in every if variable.startswith("MLOPS_")} - withheld <= given, name
        assert all("secretKeyRef" in variable["valueFrom"] for variable in container["env"]), name


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_process_is_one_of_the_product(example: str) -> None:
    for container in containers(example).values():
        program, *words = container["args"]
        if program == "python":
            assert find_spec(words[1]) is not None, words
        elif program == "mlops":
            command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
            command.make_context(words[0], words[1:])
        else:
            assert (program, words[:2]) == ("dagster", ["api", "grpc"])
            grpc_command.make_context("grpc", words[2:])


@pytest.mark.parametrize("example", EXAMPLES)
def test_claims_have_one_writer_and_nothing_is_shared(example: str) -> None:
    for each in objects(example):
        if each["kind"] == "PersistentVolumeClaim":
            assert each["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_tag_names_one_build() -> None:
    values = ("--values", str(CHART / "examples" / "small.yaml"))
    for setting, message in (
        ("images.code.tag=latest", "names no build"),
        ("images.serving.tag=", "has to name one build"),
        ("storage.location=", "has to name an object storage"),
    ):
        refused = helm("template", "parcels", str(CHART), *values, "--set", setting)
        assert refused.returncode != 0, setting
        assert message in refused.stderr
    refused = helm("template", "parcels", str(CHART), *values, "--set", "ingress.enabled=true,ingress.hosts.mlflow=m.example.org")
    assert "in clear text" in refused.stderr


def test_servers_of_predictions_are_added_and_drained() -> None:
    pod = pods("production")["parcels-online"]
    assert pod["terminationGracePeriodSeconds"] > 5 + 10 + 10  # the cluster learns, last answers, the rest of the spool
    [online] = pod["containers"]
    [shipper] = pod["initContainers"]
    assert shipper["restartPolicy"] == "Always"  # it ends after the server
    assert (online["livenessProbe"]["httpGet"]["path"], online["readinessProbe"]["httpGet"]["path"]) == ("/livez", "/readyz")
    scaler = named("production", "HorizontalPodAutoscaler", "parcels-online")["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "mlops_requests_in_flight"
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert named("production", "PodDisruptionBudget", "parcels-online")["spec"]["maxUnavailable"] == 1
    [trigger] = named("production", "ScaledObject", "parcels-stream")["spec"]["triggers"]
    assert (trigger["metadata"]["stream"], trigger["metadata"]["consumer"]) == (REQUESTS, scorer_consumer("parcel_delay"))
    # What counts them may not be set beside it.
    assert "replicas" not in named("production", "Deployment", "parcels-stream")["spec"]


def test_tasks_on_ray_reach_the_state() -> None:
    cluster = named("ray", "RayCluster", "parcels-ray")["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == containers("ray")["code-location"]["image"]
        assert {"configMapRef": {"name": "parcels-environment"}} in container["envFrom"]
        assert {variable["name"] for variable in container["env"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/var/lib/mlops", "/var/lib/mlops/signing_key"}
        assert pod["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_migrations_need_nothing_that_comes_after_them(example: str) -> None:
    job = named(example, "Job", "parcels-migrations")
    assert "pre-upgrade" in job["metadata"]["annotations"]["helm.sh/hook"]
    hooks = {
        each["metadata"]["name"] for each in objects(example) if "helm.sh/hook" in (each["metadata"].get("annotations") or {})
    }
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    needed = {pod["serviceAccountName"], *(volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume)}
    assert needed | {source["configMapRef"]["name"] for source in container["envFrom"]} <= hooks
    assert job["spec"]["backoffLimit"] == 0


def test_migrations_make_what_is_missing_on_servers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    server = Settings(home=tmp_path / "server")
    server.home.mkdir()
    [container] = pods("small")["parcels-migrations"]["containers"]
    with scratch_postgres(server):
        monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("MLOPS_POSTGRES_URL", f"postgresql://postgres@/postgres?host={server.postgres_directory}")
        monkeypatch.setenv("MLOPS_NATS_URL", "nats://127.0.0.1:1")
        upgraded = CliRunner().invoke(app, container["args"][1:])
        assert upgraded.exit_code == 0, upgraded.output
        assert "Nothing to migrate" in upgraded.stdout
        settings = Settings.from_environment()
        assert has_table(settings, LAKE_DATABASE, "ducklake_metadata")
        assert not settings.supervisor_configuration.exists()
        assert query_value(settings, LAKE_DATABASE, f"SELECT name FROM {TABLE}") == "local"


def test_a_program_runs_with_the_variables_of_the_servers(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "MLOPS_HOME": str(tmp_path),
        "MLOPS_POSTGRES_URL": "postgresql://anna:hidden@db/postgres",
    }
    command = [scripts_directory() / "mlops", "exec", "python", "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    variables = json.loads(ended.stdout)
    assert variables["DAGSTER_HOME"] == str(tmp_path / "dagster")
    assert variables["DAGSTER_STORAGE_URL"].startswith("postgresql+psycopg2://anna@db/dagster")
    assert "hidden" not in variables["DAGSTER_STORAGE_URL"]
    missing = subprocess.run(
        [*command[:2], "no-such-program", "--option"], env=environment, capture_output=True, text=True, check=False
    )
    assert (missing.returncode, "no-such-program cannot be run" in missing.stderr) == (1, True)


def test_dagster_is_configured_as_on_one_machine(tmp_path: Path) -> None:
    template = text_templates(TEMPLATE_DIRECTORY).get_template("dagster.yaml.j2")
    local = yaml.safe_load(template.render(settings=Settings(home=tmp_path), slots=slots(), slots_tag=SLOTS_TAG))
    pods = dagster_configuration("production")
    for name in ("storage", "local_artifact_storage", "compute_logs", "run_launcher"):
        local.pop(name)
        pods.pop(name)
    counts = [configuration.pop("concurrency") for configuration in (local, pods)]
    assert pods == local
    limits = [{each["value"]: each["limit"] for each in count["runs"]["tag_concurrency_limits"]} for count in counts]
    assert limits[1] == {**limits[0], WORK: 8}
    assert counts[1]["runs"]["max_concurrent_runs"] == sum(limits[1].values())
    assert counts[0]["pools"] == counts[1]["pools"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_dagster_accepts_its_configuration(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_STORAGE_URL", "postgresql+psycopg2://host/dagster")
    result = validate_config(dagster_instance_config_schema(), dagster_configuration(example))
    assert result.success, result.errors


class _Api(ThreadingHTTPServer):
    """Takes what is posted, and answers with it, as the API does."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Api

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, json.loads(body)))
        self.send_response(403 if self.server.refuses else 201)
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
def instance(api: _Api, tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with the launcher of the chart, for whom the API is at another address."""
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}], "current-context": "x"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **kubeconfig}))
    launcher = dagster_configuration("production")["run_launcher"]
    launcher["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")}
    with instance_for_test(overrides={"run_launcher": launcher}) as created:
        yield created


def test_a_run_gets_a_pod_with_variables_secrets_and_few_rights(api: _Api, instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, job_name="some", remote_job_origin=REMOTE, job_code_origin=CODE)
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    [(path, job)] = api.posted
    assert path.startswith("/apis/batch/v1/namespaces/ml/jobs")
    for version in VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "registry.example.org/parcels:3f2a9c1"
    assert run.run_id in " ".join(container["args"])
    # The image begins with `mlops exec`, which sets the variables of the platform.
    assert not container.get("command")
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/var/lib/mlops", "/var/lib/mlops/signing_key", "/tmp"}
    assert container["envFrom"] == [
        {"configMapRef": {"name": "parcels-environment"}},
        {"secretRef": {"name": "parcels-variables"}},
    ]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert (container["securityContext"]["allowPrivilegeEscalation"], pod["securityContext"]["runAsNonRoot"]) == (False, True)
    assert pod["serviceAccountName"] == "parcels-runs"
    # The network policies know it by its label.
    assert job["spec"]["template"]["metadata"]["labels"]["mlops/release"] == "parcels"
    # A pod that is started again beside a run that Dagster tries again would be two runs at once.
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


@dg.asset(op_tags=pod_tags(StageResources(cpu=4, memory="16Gi")))
def model() -> None:
    """A stage whose YAML has resources."""


def pods_for_steps() -> dg.JobDefinition:
    settings = Settings.from_environment({"MLOPS_HOME": "/", **named("production", "ConfigMap", "parcels-environment")["data"]})
    job = dg.define_asset_job("steps", selection=[model])
    return dg.Definitions(assets=[model], jobs=[job], executor=step_executor(settings)).resolve_job_def("steps")


def test_a_step_gets_a_pod_with_the_resources_of_its_stage(api: _Api, instance: DagsterInstance) -> None:
    api.refuses = True  # nobody would work on the step
    ended = dg.execute_job(dg.reconstructable(pods_for_steps), instance=instance)
    assert not ended.success
    [(path, job)] = api.posted
    assert path.startswith("/apis/batch/v1/namespaces/ml/jobs")
    for version in VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"] == {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "16Gi"}}
    assert "execute_step" in container["args"]
    # All else is that of the pods of runs.
    assert not container.get("command")
    assert container["image"] == "registry.example.org/parcels:3f2a9c1"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {"configMapRef": {"name": "parcels-environment"}} in container["envFrom"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/var/lib/mlops", "/var/lib/mlops/signing_key", "/tmp"}
    assert job["spec"]["template"]["metadata"]["labels"]["mlops/release"] == "parcels"
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"], pod["serviceAccountName"]) == (0, "Never", "parcels-runs")


def test_a_run_in_a_pod_is_not_taken_for_one_whose_process_is_gone(instance: DagsterInstance) -> None:
    run = create_run_for_test(
        instance, job_name="some", remote_job_origin=REMOTE, job_code_origin=CODE, status=DagsterRunStatus.STARTED
    )
    assert recover_runs(instance, served=True) == []
    assert find_blockages(instance) == []
    assert instance.get_run_by_id(run.run_id).status is DagsterRunStatus.STARTED
