"""Observation of the versions that the servers answer with, and the sensor that has a change of them checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from mlops_assets.clients.champion import RegistryUnreachableError, registered_champion
from mlops_assets.core.keys import DEPLOYMENT, stage_key
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.serving.reports import Channel, ProcessReport, read_reports

_INTERVAL_SECONDS = 30


@dataclass(frozen=True)
class ServedVersion:
    """What one process serves of a solution: the version (None = nothing), those of segments, and what it says is wrong."""

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
        """What is not as it should be, in sentences."""
        if self.version is None:
            return []
        absent = [channel for channel in self.channels if channel not in {served.channel for served in self.processes}]
        faults = [f"no process of the channel {channel} runs" for channel in absent]
        for served in self.processes:
            process = f"process {served.pid} ({served.channel})"
            if served.is_stale:
                faults.append(f"{process} has not reported for a while")
            if (served.version, served.segments) != (self.version, self.segments):
                faults.append(
                    f"{process} serves {_named(served.version, served.segments)} instead of {_named(self.version, self.segments)}"
                    + "".join(f": {problem}" for problem in served.problems)
                )
        return faults


def observe(settings: Settings, solution: str, *, segments: Sequence[str], channels: Sequence[Channel]) -> Observation:
    """The registry's champions and what the processes of this machine report. Raises RegistryUnreachableError."""
    champion = registered_champion(settings, solution)
    of_segments = {segment: registered_champion(settings, solution, segment) for segment in segments}
    now = datetime.now(UTC)
    return Observation(
        version=champion.version if champion else None,
        segments=tuple(sorted((segment, found.version) for segment, found in of_segments.items() if found)),
        channels=tuple(channels),
        processes=tuple(
            _served(report, solution, now)
            for report in read_reports(settings.server_reports_directory)
            if report.channel in channels
        ),
    )


def build_served_version_sensor(
    solution: str, rule_name: str, *, segments: Sequence[str], channels: Sequence[Channel]
) -> dg.SensorDefinition:
    """The sensor of one solution: a run of the check `rule_name` of its deployment whenever the observation is another one."""
    check = dg.AssetCheckKey(stage_key(solution, DEPLOYMENT), rule_name)

    name = f"{solution}_{rule_name}"
    description = "Has it checked whether every server process serves the registry's champion, when either changed."

    @dg.sensor(
        name=name,
        description=description,
        target=dg.define_asset_job(name, selection=dg.AssetSelection.checks(check), description=description),
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def served_version(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            observation = observe(settings, solution, segments=segments, channels=channels)
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        if observation.version is None:
            return dg.SkipReason("there is no champion yet")
        # Processes come and go; what counts is what any of them serves.
        state = repr(
            (
                observation.version,
                observation.segments,
                sorted({(s.channel, s.version, s.segments) for s in observation.processes}, key=repr),
            )
        )
        if state == context.cursor:
            return dg.SkipReason("nothing changed since the last check")
        return dg.SensorResult(run_requests=[dg.RunRequest(asset_check_keys=[check])], cursor=state)

    return served_version


def _served(report: ProcessReport, solution: str, now: datetime) -> ServedVersion:
    model = report.models.get(solution)
    return ServedVersion(
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
