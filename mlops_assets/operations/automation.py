"""Sensors of the running Dagster: their state, and the switch of those that launch work by themselves."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.core.conditions import CONDITIONS_SENSORS
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.monitoring.retraining_sensor import RETRAINING_SUFFIX, sensor_name
from mlops_assets.schema.configuration_errors import nearest

_SENSORS = """
query Sensors($repository: RepositorySelector!) { sensorsOrError(repositorySelector: $repository) { __typename
  ... on Sensors { results { name description sensorState { id status } } } ... on PythonError { message } } }"""

_START = """
mutation Start($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } } }"""

_STOP = """
mutation Stop($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"""

_EVALUATED = """
query Evaluated($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { __typename
  ... on Sensor { sensorState { ticks(limit: 1, statuses: [SUCCESS, SKIPPED]) { id } } } } }"""

_STATE = """
query State($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { __typename
  ... on Sensor { sensorState { status ticks(limit: 1) { status } } } } }"""

_POLL_SECONDS = 0.5
_EVALUATION_SECONDS = 180
_QUIET_POLLS = 2
"""So often in a row a sensor is seen off and at rest: its state is written a moment after its evaluation has ended."""


@dataclass(frozen=True)
class Sensor:
    """One sensor: its name, whether it is on, and Dagster's identity of its state."""

    name: str
    description: str
    on: bool
    identity: str


def read_sensors(client: DagsterClient) -> dict[str, Sensor]:
    """All sensors by name."""
    answer = client.query(_SENSORS, repository=_repository())["sensorsOrError"]
    if answer["__typename"] != "Sensors":
        raise StackError(f"Dagster names no sensors: {answer}", remedy="See `mlops logs code-location`.")
    return {
        each["name"]: Sensor(
            name=each["name"],
            description=each["description"] or "",
            on=each["sensorState"]["status"] == "RUNNING",
            identity=each["sensorState"]["id"],
        )
        for each in answer["results"]
    }


Part = Literal["features", "stages", "retraining"]
"""A part of automation: what follows of features; of predictions, outcomes, reports and decisions; and what decisions launch."""


def automation_sensors(client: DagsterClient, solution: str | None, parts: Collection[Part]) -> list[Sensor]:
    """The sensors that `mlops automation` switches, which launch work that nobody asked for by hand: of `parts`, or the one of `solution`.

    Raises StackError when there is no such solution.
    """
    sensors = dict(sorted(read_sensors(client).items()))
    retraining = [name for name in sensors if name.endswith(RETRAINING_SUFFIX)]
    if solution is None:
        names = names_of_parts(retraining, parts)
        return [sensor for name, sensor in sensors.items() if name in names]
    if sensor_name(solution) not in retraining:
        known = [name.removesuffix(RETRAINING_SUFFIX) for name in retraining]
        raise StackError(f"There is no solution {solution!r} to switch.", remedy=f"{nearest(solution, known).capitalize()}")
    return [sensors[sensor_name(solution)]]


def names_of_parts(retraining: Sequence[str], parts: Collection[Part]) -> set[str]:
    """Return the names of the sensors of `parts`, where those of `retraining` are the solutions'; each part has its own."""
    features, stages = CONDITIONS_SENSORS
    by_part: dict[Part, Sequence[str]] = {"features": [features], "stages": [stages], "retraining": retraining}
    return {name for part in parts for name in by_part[part]}


def switch_sensors(client: DagsterClient, sensors: Sequence[Sensor], *, on: bool) -> None:
    """Start or stop sensors, and return when those that are on have looked once at what there is.

    The first evaluation of a condition takes everything it sees as old. Partitions written between the switch and that evaluation would
    never be followed, so the switch waits for it. A retraining sensor has then launched what the newest decision asks for. Sensors that
    were stopped are off for good.
    """
    switched = [sensor for sensor in sensors if sensor.on != on]
    evaluated = {sensor.name: _newest_evaluation(client, sensor) for sensor in switched}
    for sensor in switched:
        _switch(client, sensor, on=on)
    if not on:
        for sensor in switched:
            _await_stop(client, sensor)
        return
    for sensor in sensors:
        _await_evaluation(client, sensor, after=evaluated.get(sensor.name))


def _switch(client: DagsterClient, sensor: Sensor, *, on: bool) -> None:
    answer = (
        client.query(_START, sensor={**_repository(), "sensorName": sensor.name})
        if on
        else client.query(_STOP, id=sensor.identity)
    )
    [outcome] = answer.values()
    if outcome["__typename"] not in ("Sensor", "StopSensorMutationResult"):
        raise StackError(f"The sensor {sensor.name} was not switched: {outcome}", remedy="See `mlops logs dagster-webserver`.")


def _newest_evaluation(client: DagsterClient, sensor: Sensor) -> str | None:
    """Return the identity of the newest evaluation of the sensor that has ended."""
    selector = {**_repository(), "sensorName": sensor.name}
    ticks = client.query(_EVALUATED, sensor=selector)["sensorOrError"]["sensorState"]["ticks"]
    return ticks[0]["id"] if ticks else None


def _await_evaluation(client: DagsterClient, sensor: Sensor, *, after: str | None) -> None:
    """Wait until Dagster's daemon has evaluated the sensor once more than when `after` was the newest evaluation.

    An earlier one does not know the assets of a solution that was added while the sensor was off.
    """
    deadline = time.monotonic() + _EVALUATION_SECONDS
    while _newest_evaluation(client, sensor) == after:
        if time.monotonic() > deadline:
            raise StackError(
                f"The sensor {sensor.name} is on, and Dagster's daemon has not evaluated it within {_EVALUATION_SECONDS} s.",
                remedy="See `mlops status` and `mlops logs dagster-daemon`.",
            )
        time.sleep(_POLL_SECONDS)


def _await_stop(client: DagsterClient, sensor: Sensor) -> None:
    """Wait until the sensor is off and no evaluation of it is under way; stop it again where one has switched it on.

    At the end of an evaluation Dagster's daemon reads the state of the sensor and writes it with a new cursor. A sensor that was stopped
    between the two is on again (dagster 1.13, `SensorLaunchContext._write`).
    """
    deadline = time.monotonic() + _EVALUATION_SECONDS
    selector = {**_repository(), "sensorName": sensor.name}
    quiet = 0
    while quiet < _QUIET_POLLS:
        state = client.query(_STATE, sensor=selector)["sensorOrError"]["sensorState"]
        if state["status"] == "RUNNING":
            _switch(client, sensor, on=False)
        is_off = state["status"] != "RUNNING" and all(tick["status"] != "STARTED" for tick in state["ticks"])
        quiet = quiet + 1 if is_off else 0
        if time.monotonic() > deadline:
            raise StackError(
                f"The sensor {sensor.name} was stopped, and its evaluation has not ended within {_EVALUATION_SECONDS} s.",
                remedy="See `mlops status` and `mlops logs dagster-daemon`.",
            )
        time.sleep(_POLL_SECONDS)


@contextmanager
def switched_on(client: DagsterClient, *names: str) -> Iterator[None]:
    """Inside the block the sensors are on; afterwards they are as they were before."""
    sensors = read_sensors(client)
    before = [sensors[name] for name in names]
    switch_sensors(client, before, on=True)
    try:
        yield
    finally:
        switched = [sensor.name for sensor in before if not sensor.on]
        sensors = read_sensors(client)
        switch_sensors(client, [sensors[name] for name in switched], on=False)


def _repository() -> dict[str, str]:
    return {"repositoryName": "__repository__", "repositoryLocationName": current_project().code_location}
