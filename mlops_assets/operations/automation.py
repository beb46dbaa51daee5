"""Sensors of the running Dagster: their state, and the switch of those that launch work by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


def automation_sensors(client: DagsterClient, solution: str | None) -> list[Sensor]:
    """The sensors that `mlops automation` switches: those that launch work which nobody asked for by hand, or the one of `solution`.

    Raises StackError when there is no such solution.
    """
    sensors = dict(sorted(read_sensors(client).items()))
    retraining = [name for name in sensors if name.endswith(RETRAINING_SUFFIX)]
    if solution is None:
        return [sensor for name, sensor in sensors.items() if name in CONDITIONS_SENSORS or name in retraining]
    if sensor_name(solution) not in retraining:
        known = [name.removesuffix(RETRAINING_SUFFIX) for name in retraining]
        raise StackError(f"There is no solution {solution!r} to switch.", remedy=f"{nearest(solution, known).capitalize()}")
    return [sensors[sensor_name(solution)]]


def switch_sensor(client: DagsterClient, sensor: Sensor, *, on: bool) -> None:
    """Start or stop a sensor; one that is so already stays as it is. Dagster remembers it over restarts."""
    if sensor.on == on:
        return
    answer = (
        client.query(_START, sensor={**_repository(), "sensorName": sensor.name})
        if on
        else client.query(_STOP, id=sensor.identity)
    )
    [outcome] = answer.values()
    if outcome["__typename"] not in ("Sensor", "StopSensorMutationResult"):
        raise StackError(f"The sensor {sensor.name} was not switched: {outcome}", remedy="See `mlops logs dagster-webserver`.")


@contextmanager
def switched_on(client: DagsterClient, name: str) -> Iterator[None]:
    """Inside the block the sensor is on; afterwards it is as it was before."""
    before = read_sensors(client)[name]
    switch_sensor(client, before, on=True)
    try:
        yield
    finally:
        if not before.on:
            switch_sensor(client, read_sensors(client)[name], on=False)


def _repository() -> dict[str, str]:
    return {"repositoryName": "__repository__", "repositoryLocationName": current_project().code_location}
