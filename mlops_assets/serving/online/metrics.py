"""Prometheus metrics of the online server, over all of its processes.

prometheus_client decides when it is imported whether processes share their numbers: `share_between_processes` comes before that.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mlops_assets.online_store.values import Flag

if TYPE_CHECKING:
    from mlops_assets.serving.live import LiveSolutions
    from mlops_assets.serving.prediction_record import PredictionRecord

_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def share_between_processes(directory: Path) -> None:
    """Let this process and those it starts keep their numbers in `directory`, which is emptied."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ[_DIRECTORY_VARIABLE] = str(directory)


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._children: dict[tuple[Any, tuple[Any, ...]], Any] = {}
        self.registry = CollectorRegistry()
        self._requests = Counter("mlops_requests", "Requests for predictions.", ["solution", "status"], registry=self.registry)
        self._seconds = Histogram(
            "mlops_request_seconds",
            "Time from a request's arrival to its answer.",
            ["solution"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._callers = Counter(
            "mlops_caller_requests",
            "Requests by caller: admitted, limited or forbidden.",
            ["caller", "outcome"],
            registry=self.registry,
        )
        self._predictions = Counter(
            "mlops_predictions", "Predictions made.", ["solution", "model_version", "role"], registry=self.registry
        )
        self._flagged = Counter(
            "mlops_flagged_features",
            "Predictions with a flag other than ok, by feature view.",
            ["solution", "view", "flag"],
            registry=self.registry,
        )
        self._unseen = Counter(
            "mlops_unseen_categories",
            "Predictions from a category that training did not hold, by feature.",
            ["solution", "feature"],
            registry=self.registry,
        )
        self.challenger_failures = Counter(
            "mlops_challenger_failures", "Requests that a challenger could not score.", ["solution"], registry=self.registry
        )
        self.in_flight = Gauge(
            "mlops_requests_in_flight", "Requests accepted and not answered.", multiprocess_mode="livesum", registry=self.registry
        )
        self.version = Gauge(
            "mlops_model_version",
            "Version that a process serves; 0 = none.",
            ["solution", "role"],
            multiprocess_mode="liveall",
            registry=self.registry,
        )
        self.problems = Gauge(
            "mlops_model_problems",
            "Linked bundles that could not serve; those before them go on.",
            ["solution"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )

    def count(self, records: "Sequence[PredictionRecord]") -> None:
        """Count predictions that were made and kept."""
        for record in records:
            self._child(self._predictions, record.solution, record.model_version, record.role).inc()
            for name, view in record.views.items():
                if view.flag is not Flag.OK:
                    self._child(self._flagged, record.solution, name, view.flag).inc()
            for name in record.unseen:
                self._child(self._unseen, record.solution, name).inc()

    def count_request(self, solution: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._child(self._requests, solution, status).inc()
        self._child(self._seconds, solution).observe(seconds)

    def count_caller(self, caller: str, outcome: str) -> None:
        """Count a request that came with a caller's own token."""
        self._child(self._callers, caller, outcome).inc()

    def _child(self, metric: Any, *labels: Any) -> Any:
        """`metric.labels(*labels)`, which takes ten times as long."""
        try:
            return self._children[metric, labels]
        except KeyError:
            return self._children.setdefault((metric, labels), metric.labels(*labels))

    def show_state(self, solutions: "LiveSolutions", in_flight: int) -> None:
        """Say which versions this process serves, and how many requests it is at."""
        self.in_flight.set(in_flight)
        for name, solution in solutions.items():
            champion, challenger = solution.champions and solution.champions.default, solution.challenger.model
            self.version.labels(name, "champion").set(champion.contract.version if champion else 0)
            self.version.labels(name, "challenger").set(challenger.contract.version if challenger else 0)
            self.problems.labels(name).set(len(solution.problems))

    def exposition(self) -> bytes:
        """The text that Prometheus reads: of every process that shares its numbers, or of this one alone."""
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess

        directory = os.environ.get(_DIRECTORY_VARIABLE)
        if directory is None:
            return generate_latest(self.registry)
        for file in Path(directory).glob("gauge_live*.db"):
            if not psutil.pid_exists(int(file.stem.rpartition("_")[2])):
                # The process was killed: nobody else takes it out of the sums.
                file.unlink(missing_ok=True)
        shared = CollectorRegistry()
        multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
