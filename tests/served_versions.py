"""An example with accepted versions in a real registry, which answers over REST too, and their deployments in one process. No tests here."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
from bundles import record_of
from evaluated_candidates import bundle_of, case
from http_servers import running
from msgspec.structs import replace as replace_struct
from registry_database import new_registry_url

from mlops_assets.clients.bundle_record import TrainingIdentity, folder_files
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.check_rules import ONLINE_OFFLINE_PARITY
from mlops_assets.core.keys import ONLINE_FEATURES, job_name
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.champion_sensor import build_champion_sensor
from mlops_assets.deployment.deployment import build_deployment
from mlops_assets.deployment.switch_journal import Switch, SwitchJournal
from mlops_assets.deployment.switching import Evidence, switched_at_once
from mlops_assets.serving.active import champion_link, linked_bundle
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import keep_bundle

NAME = "example"
FIRST_DAY = date(2013, 2, 1)


@dataclass(frozen=True)
class _Event:
    run_id: str
    metadata: Mapping[str, Any]


@dataclass
class ServedVersions:
    """The example, with the versions that `add` made of it, and its event log."""

    settings: Settings
    registry: ModelRegistry
    inputs: SolutionInputs
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def journal(self) -> SwitchJournal:
        return SwitchJournal.of(self.settings, NAME)

    def add(self, segment: str | None = None) -> int:
        """Another accepted version, trained for a day of its own (on the rows of `segment`)."""
        client = self.registry.client
        run_id = client.create_run("0").info.run_id
        number = len(client.search_model_versions(f"name = '{NAME}'")) + 1
        day = FIRST_DAY + timedelta(days=number)
        training = TrainingIdentity(day, f"{number}", "0", segment)
        client.create_model_version(NAME, f"runs:/{run_id}/bundle", run_id=run_id, tags=training.tags)
        model = self.registry.get(NAME, number)
        folder = self.settings.home / "made" / str(number)
        bundle_of(case("binary_classification"), folder, number)
        record = replace_struct(record_of(NAME, number), run_id=run_id, training=training, files=folder_files(folder))
        self.registry.sign_bundle(record)
        keep_bundle(self.settings, model, folder)
        self.registry.accept(self.registry.get(NAME, number), record, engine="process", reason="a test")
        return number

    def model(self, version: int) -> RegisteredModel:
        return self.registry.get(NAME, version)

    def deploy(self, version: int, tags: Mapping[str, str] | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        """A run of the deployment of a version."""
        target, deployment = self.inputs.deployment_target, build_deployment(replace(self.inputs, segment=None))
        configuration = {"version": version, **config}
        return dg.materialize(
            [deployment],
            instance=self.instance,
            partition_key=target.partition_key(self.model(version).tags["training_date"]),
            resources={"registry": self.registry, "settings": self.settings},
            run_config={"ops": {target.key.to_python_identifier(): {"config": configuration}}},
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def deployments(self) -> list[dict[str, Any]]:
        """The metadata of all recorded deployments (of the segment), newest first."""
        records = self.instance.fetch_materializations(self.inputs.deployment_target.key, limit=1000).records
        events = [record.asset_materialization for record in records]
        return [{name: value.value for name, value in event.metadata.items()} for event in events if event is not None]

    @contextmanager
    def rolled_back(self, version: int, reason: str = "complaints") -> Iterator[Switch | None]:
        """What the command does before it launches a run."""
        events = [_Event("a run", metadata) for metadata in self.deployments()]
        evidence = Evidence(events, [])
        with switched_at_once(
            self.settings, self.model(version), self.inputs.segment, evidence, actor="anna", reason=reason
        ) as switch:
            yield switch

    def tick(self) -> list[dg.RunRequest]:
        """The runs that the sensor of champions asks for."""
        context = dg.build_sensor_context(instance=self.instance, resources={"settings": self.settings})
        target = self.inputs.deployment_target
        job = define_job(job_name(*target.key.path), selection=dg.AssetSelection.all(), description="")
        answer = build_champion_sensor([target], [job])(context)
        assert isinstance(answer, dg.SensorResult), answer
        return list(answer.run_requests or [])

    def follow(self, request: dg.RunRequest) -> None:
        """Execute a run that the sensor asked for."""
        [operation] = request.run_config["ops"].values()
        done = self.deploy(tags=request.tags, **operation["config"])
        assert done.success

    @property
    def live(self) -> tuple[int | None, int | None]:
        """The version that predicts, as the registry and the folder of the servers have it."""
        champion = self.registry.champion(NAME, self.inputs.segment)
        folder = linked_bundle(self.settings.serving_directory / NAME, champion_link(self.inputs.segment))
        return (champion.version if champion else None, int(folder.name) if folder else None)


def _handler(client: Any) -> type[BaseHTTPRequestHandler]:
    """MLflow's endpoints of aliases and versions, for the registry behind `client`."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, find: Callable[[], dict[str, Any]]) -> None:
            try:
                status, answer = 200, find()
            except Exception as error:  # as MLflow answers for whatever its store raises
                status, answer = 404, {"message": str(error)}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path.endswith("/search"):
                self._answer(self._search)
            elif parts.path.endswith("/alias"):
                self._answer(lambda: _version(client.get_model_version_by_alias(asked["name"], asked["alias"])))
            else:
                self._answer(lambda: _version(client.get_model_version(asked["name"], asked["version"])))

        def _search(self) -> dict[str, Any]:
            aliases = client.get_registered_model(NAME).aliases.items()
            listed = [{"alias": alias, "version": version} for alias, version in aliases]
            return {"registered_models": [{"name": NAME, "aliases": listed}]}

        def _content(self) -> dict[str, Any]:
            return dict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_POST(self) -> None:
            content = self._content()
            self._answer(lambda: client.set_registered_model_alias(*content.values()) or {})

        def do_DELETE(self) -> None:
            content = self._content()
            self._answer(lambda: client.delete_registered_model_alias(*content.values()) or {})

        def log_message(self, *_: object) -> None:
            return

    return Handler


def _version(version: Any) -> dict[str, Any]:
    tags = [{"key": key, "value": value} for key, value in version.tags.items()]
    return {"model_version": {"version": str(version.version), "run_id": version.run_id, "tags": tags}}


@contextmanager
def served_versions(folder: Path, change: Callable[[SolutionInputs], SolutionInputs] | None = None) -> Iterator[ServedVersions]:
    """The example without versions, whose state is in `folder`; `change` makes its inputs others."""
    settings = Settings(home=folder / "home")
    settings.home.mkdir()
    registry = ModelRegistry(new_registry_url(folder), "", Signer(settings.signing_key_file))
    registry.client.create_registered_model(NAME)
    inputs = case("binary_classification").inputs
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(registry.client))
    with running(server):
        example = ServedVersions(replace_settings(settings, server.server_port), registry, change(inputs) if change else inputs)
        check = dg.AssetCheckEvaluation(inputs.key(ONLINE_FEATURES), ONLINE_OFFLINE_PARITY.name, passed=True, metadata={})
        example.instance.report_runless_asset_event(check)
        yield example


def replace_settings(settings: Settings, port: int) -> Settings:
    """The settings with the port of the registry."""
    return replace(settings, mlflow_port=port)
