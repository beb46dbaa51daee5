"""The sensor that brings the challenger of the servers in line with the registry and the YAML."""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from mlops_assets.clients.aliases import CHALLENGER as CHALLENGER_ALIAS
from mlops_assets.clients.champion import Aliases, RegistryUnreachableError, registered_aliases
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.keys import CHALLENGER, job_name, stage_key
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.core.shared_sensors import look_at_each, read_cursor, tick_result
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import CHALLENGER_LINK
from mlops_assets.serving.bundle_store import open_followed_store

NAME = "challengers"
_INTERVAL_SECONDS = 30


@dataclass(frozen=True)
class ChallengerAssignment:
    """The options of the servers, and the version that they try beside the champion: None for none."""

    options: Serving
    version: int | None


def declared_assignment(aliases: Aliases, solution: str, options: Serving) -> ChallengerAssignment:
    """Return the assignment that the YAML and the registry ask for."""
    version = aliases.get(solution, {}).get(CHALLENGER_ALIAS) if options.tries_challenger else None
    return ChallengerAssignment(options, version)


def current_assignment(settings: Settings, solution: str) -> ChallengerAssignment:
    """Return the assignment that the servers of this machine follow."""
    # As the servers do: it does not wait for a store that is away.
    bundles = open_followed_store(settings).of(solution)
    bundle = bundles.active(CHALLENGER_LINK)
    return ChallengerAssignment(bundles.read_options(), int(bundle.name) if bundle else None)


def build_challenger_sensor(solutions: Mapping[str, Serving]) -> dg.SensorDefinition:
    """The sensor of `solutions` with the section `serving` of each: a materialization of `challenger` for each difference of the two.

    The registry is asked once a tick, and not at all while no solution tries a challenger.
    """

    @dg.sensor(
        name=NAME,
        description="Lets the servers try the challengers, and follow the sections `serving` of the YAML, when either changed.",
        jobs=[
            define_job(
                job_name(solution, CHALLENGER),
                selection=dg.AssetSelection.assets(stage_key(solution, CHALLENGER)),
                description=f"Lets the servers try the challenger of {solution}, and follow the section `serving` of its YAML.",
            )
            for solution in solutions
        ],
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def challengers(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        try:
            aliases = registered_aliases(settings) if any(options.tries_challenger for options in solutions.values()) else {}
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        requested_before = {name: state for name, state in read_cursor(context).items() if name in solutions}

        def look(name: str, options: Serving) -> dg.RunRequest | str:
            requested, present = declared_assignment(aliases, name, options), current_assignment(settings, name)
            if requested == present:
                return "the servers do what the YAML and the registry ask for"
            state = f"{requested} instead of {present}"
            if requested_before.get(name) == state:
                return "asked for already"
            requested_before[name] = state
            return dg.RunRequest(job_name=job_name(name, CHALLENGER))

        requests, reason = look_at_each(solutions, look)
        return tick_result(requests, reason, requested_before)

    return challengers
