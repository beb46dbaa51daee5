"""The tracking server: MLflow runs with their parameters, metrics and artifacts, through `MlflowClient` alone.

Its fluent interface is avoided, since MLflow's active run is thread-local. MLflow is imported when it is first used, so that
loading the code location stays cheap.
"""

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 1000
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers about something that is not there."""


@dataclass(frozen=True)
class TrackingServer:
    """Access to the runs of one MLflow server. A solution's runs are in the experiment of its name."""

    url: str
    token: str = field(repr=False)
    authorities: Path | None = field(default=None, kw_only=True)

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client."""
        # It looks for its token here at each request, and nowhere else: another registry of this process has another one.
        os.environ["MLFLOW_TRACKING_TOKEN"] = self.token
        if self.authorities:
            os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(self.authorities)
        return self._client

    @cached_property
    def _client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    def start_run(self, solution: str, *, name: str, tags: Mapping[str, str]) -> str:
        """Open a run in the solution's experiment (made when missing) and return its id."""
        experiment = self.client.get_experiment_by_name(solution)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(solution)
        return self.client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id

    def log(self, run_id: str, *, parameters: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Record parameters and metrics in one call; those without a value are left out."""
        from mlflow.entities import Metric, Param

        moment = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            params=[Param(key, str(value)) for key, value in parameters.items() if value is not None],
            metrics=[Metric(key, float(value), moment, 0) for key, value in metrics.items() if value is not None],
        )

    def log_json(self, run_id: str, content: Mapping[str, Any], path: str) -> None:
        """Store `content` as the JSON artifact `path`."""
        self.client.log_text(run_id, json.dumps(content, indent=2, default=str, ensure_ascii=False), path)

    def log_texts(self, run_id: str, contents: Mapping[str, str]) -> None:
        """Store each text as the artifact of its name."""
        for path, text in contents.items():
            self.client.log_text(run_id, text, path)

    def parameters(self, run_id: str) -> dict[str, str]:
        """The parameters recorded with a run."""
        return dict(self.client.get_run(run_id).data.params)

    def log_plots(self, run_id: str, plots: Mapping[str, bytes]) -> None:
        """Store PNG images under `plots/`."""
        with tempfile.TemporaryDirectory() as folder:
            for name, png in plots.items():
                (Path(folder) / f"{name}.png").write_bytes(png)
            self.client.log_artifacts(run_id, folder, "plots")

    def log_files(self, run_id: str, folder: Path, path: str) -> None:
        """Store the files in `folder` as the artifacts `path` of the run."""
        self.client.log_artifacts(run_id, str(folder), path)

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """The artifacts `path` of the run, downloaded below `folder`."""
        return Path(self.client.download_artifacts(run_id, path, str(folder)))

    def finish_run(self, run_id: str, *, succeeded: bool) -> None:
        """Close the run."""
        self.client.set_terminated(run_id, status="FINISHED" if succeeded else "FAILED")

    def find_runs(self, experiment_ids: Sequence[str], conditions: str, *, are_deleted: bool) -> "list[Run]":
        """All runs of the experiments that fit the conditions, or all of those that were deleted and can be restored."""
        from mlflow.entities import ViewType

        view = ViewType.DELETED_ONLY if are_deleted else ViewType.ACTIVE_ONLY
        runs: list[Run] = []
        token = None
        while experiment_ids:
            page = self.client.search_runs(list(experiment_ids), conditions, view, _PAGE, page_token=token)
            runs += page
            token = page.token
            if not token:
                break
        return runs

    def delete_logged_models(self, run: "Run") -> None:
        """Delete the models that the run logged; they can be restored until `mlflow gc`. Of one that is deleted nothing more is."""
        from mlflow.exceptions import MlflowException

        for output in run.outputs.model_outputs if run.outputs else ():
            try:
                self.client.delete_logged_model(output.model_id)
            except MlflowException as error:
                if error.error_code not in ABSENT:
                    raise

    def run_url(self, run_id: str) -> str:
        """Page of the run in the MLflow UI."""
        return f"{self.url}/#/experiments/{self.client.get_run(run_id).info.experiment_id}/runs/{run_id}"

    def artifact_url(self, run_id: str, path: str) -> str:
        """Address of an artifact of a run, as a page of the MLflow UI."""
        return f"{self.run_url(run_id)}/artifacts/{path}"
