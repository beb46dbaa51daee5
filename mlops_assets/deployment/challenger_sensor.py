"""The sensor that brings the challenger of the servers in line with the registry and the YAML."""

from dataclasses import dataclass

import dagster as dg

from mlops_assets.clients import aliases
from mlops_assets.clients.champion import RegistryUnreachableError, registered_version
from mlops_assets.core.keys import CHALLENGER, stage_key
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import CHALLENGER_LINK
from mlops_assets.serving.bundle_store import open_bundle_store

_INTERVAL_SECONDS = 30


@dataclass(frozen=True)
class ChallengerAssignment:
    """The options of the servers, and the version that they try beside the champion: None for none."""

    options: Serving
    version: int | None


def declared_assignment(settings: Settings, solution: str, options: Serving) -> ChallengerAssignment:
    """What the YAML and the registry ask for. Raises RegistryUnreachableError."""
    found = registered_version(settings, solution, aliases.CHALLENGER) if options.tries_challenger else None
    return ChallengerAssignment(options, found.version if found else None)


def current_assignment(settings: Settings, solution: str) -> ChallengerAssignment:
    """What the servers of this machine do."""
    bundles = open_bundle_store(settings).of(solution)
    bundle = bundles.active(CHALLENGER_LINK)
    return ChallengerAssignment(bundles.read_options(), int(bundle.name) if bundle else None)


def build_challenger_sensor(solution: str, options: Serving) -> dg.SensorDefinition:
    """The sensor of one solution: a materialization of `challenger` for each state of affairs in which the two differ."""
    key = stage_key(solution, CHALLENGER)

    name = f"{solution}_challenger"
    description = "Lets the servers try the challenger, and follow the section `serving` of the YAML, when either changed."

    @dg.sensor(
        name=name,
        description=description,
        target=dg.define_asset_job(name, selection=dg.AssetSelection.assets(key), description=description),
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def challenger(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        try:
            wanted = declared_assignment(settings, solution, options)
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        present = current_assignment(settings, solution)
        if wanted == present:
            return dg.SkipReason("the servers do what the YAML and the registry ask for")
        state = f"{wanted} instead of {present}"
        if state == context.cursor:
            return dg.SkipReason("asked for already")
        return dg.SensorResult(run_requests=[dg.RunRequest(asset_selection=[key])], cursor=state)

    return challenger
