"""Observation of the versions that the servers answer with, and the sensor that has a change of them checked."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.champion import RegistryUnreachableError, registered_aliases, registered_champion
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.check_rules import SERVED_VERSION
from mlops_assets.core.keys import DEPLOYMENT, job_name, stage_key
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.core.shared_sensors import look_at_each, read_cursor, tick_result
from mlops_assets.serving.report_exchange import ReportsUnreachableError, read_all_reports
from mlops_assets.serving.reports import Channel, ProcessReport

NAME = "served_versions"
_INTERVAL_SECONDS = 30


@dataclass(frozen=True)
class ServedSolution:
    """A solution as its servers have it: its segments, and the channels that its YAML turns on."""

    segments: Sequence[str]
    channels: Sequence[Channel]


@dataclass(frozen=True)
class ServedVersion:
    """The versions that one process serves of a solution (None = nothing), of its segments too, and the problems it reports."""

    machine: str
    channel: str
    pid: int
    version: int | None
    segments: tuple[tuple[str, int], ...]
    problems: tuple[str, ...]
    is_stale: bool


@dataclass(frozen=True)
class Observation:
    """The registry's champion of a solution with those of its segments, and what each process of `channels` serves."""

    version: int | None
    segments: tuple[tuple[str, int], ...]
    channels: tuple[Channel, ...]
    processes: tuple[ServedVersion, ...]

    @property
    def faults(self) -> list[str]:
        """The faults of what is served, in sentences."""
        if self.version is None:
            return []
        absent = [channel for channel in self.channels if channel not in {served.channel for served in self.processes}]
        faults = [f"no process of the channel {channel} runs" for channel in absent]
        for served in self.processes:
            elsewhere = f" on {served.machine}" if served.machine not in ("", socket.gethostname()) else ""
            process = f"process {served.pid} ({served.channel}){elsewhere}"
            if served.is_stale:
                faults.append(f"{process} has not reported for a while")
            if (served.version, served.segments) != (self.version, self.segments):
                faults.append(
                    f"{process} serves {_named(served.version, served.segments)} instead of {_named(self.version, self.segments)}"
                    + "".join(f": {problem}" for problem in served.problems)
                )
        return faults


def observe(settings: Settings, solution: str, served: ServedSolution) -> Observation:
    """The registry's champions and what the processes report. Raises RegistryUnreachableError or ReportsUnreachableError."""
    champions = {segment: registered_champion(settings, solution, segment) for segment in (None, *served.segments)}
    versions = {segment: champion.version for segment, champion in champions.items() if champion}
    return _compare(solution, served, versions, read_all_reports(settings))


def build_served_version_sensor(solutions: Mapping[str, ServedSolution]) -> dg.SensorDefinition:
    """The sensor of `solutions`: a run of the check `served_version` of a deployment whenever its observation is another one.

    A tick asks the registry once, and reads the reports of the processes once.
    """

    @dg.sensor(
        name=NAME,
        description="Has it checked whether every server process serves the registry's champions, when either changed.",
        jobs=[
            define_job(
                job_name(solution, SERVED_VERSION.name),
                selection=dg.AssetSelection.checks(_check_key(solution)),
                description=f"Checks whether every server process serves the champion of {solution}.",
            )
            for solution in solutions
        ],
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def served_versions(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            aliases, reports = registered_aliases(settings), read_all_reports(settings)
        except (RegistryUnreachableError, ReportsUnreachableError) as error:
            return dg.SkipReason(str(error))
        checked = {name: state for name, state in read_cursor(context).items() if name in solutions}

        def look(name: str, served: ServedSolution) -> dg.RunRequest | str:
            of_solution = aliases.get(name, {})
            named = {segment: of_solution.get(segment_alias(CHAMPION, segment)) for segment in (None, *served.segments)}
            versions = {segment: version for segment, version in named.items() if version is not None}
            observation = _compare(name, served, versions, reports)
            if observation.version is None:
                return "there is no champion yet"
            # Processes come and go; what counts is what any of them serves.
            state = repr(
                (
                    observation.version,
                    observation.segments,
                    sorted({(s.channel, s.version, s.segments) for s in observation.processes}, key=repr),
                )
            )
            if checked.get(name) == state:
                return "nothing changed since the last check"
            checked[name] = state
            return dg.RunRequest(job_name=job_name(name, SERVED_VERSION.name), asset_check_keys=[_check_key(name)])

        requests, reason = look_at_each(solutions, look)
        return tick_result(requests, reason, checked)

    return served_versions


def _check_key(solution: str) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(stage_key(solution, DEPLOYMENT), SERVED_VERSION.name)


def _compare(
    solution: str, served: ServedSolution, versions: Mapping[str | None, int], reports: Iterable[ProcessReport]
) -> Observation:
    """The champions' `versions`, by segment, beside what the processes report."""
    now = datetime.now(UTC)
    return Observation(
        version=versions.get(None),
        segments=tuple(sorted((segment, version) for segment, version in versions.items() if segment is not None)),
        channels=tuple(served.channels),
        processes=tuple(_served(report, solution, now) for report in reports if report.channel in served.channels),
    )


def _served(report: ProcessReport, solution: str, now: datetime) -> ServedVersion:
    model = report.models.get(solution)
    return ServedVersion(
        machine=report.machine,
        channel=report.channel,
        pid=report.pid,
        version=model.version if model else None,
        segments=tuple(sorted(model.segments.items())) if model else (),
        problems=model.problems if model else (),
        is_stale=report.is_stale(now),
    )


def _named(version: int | None, segments: tuple[tuple[str, int], ...]) -> str:
    others = "".join(f", {other} for {segment}" for segment, other in segments)
    return f"version {version}{others}" if version is not None else "nothing"
