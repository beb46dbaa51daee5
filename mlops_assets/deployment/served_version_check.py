"""`served_version`: the check that every server process answers with the registry's champion. Observed, not assumed."""

import time

import dagster as dg

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES
from mlops_assets.core.keys import DEPLOYMENT
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.served_version import Observation, ServedSolution, observe
from mlops_assets.runs.slots import SLOTS_TAG, VERSION_CHECK
from mlops_assets.serving.reports import Channel
from mlops_assets.stages.inputs import SolutionInputs

PATIENCE_SECONDS = 10.0
"""A new champion may be on its way: the servers have so long to follow it."""

_POLL_SECONDS = 0.5


def build_served_version(inputs: SolutionInputs) -> dg.AssetChecksDefinition:
    """The check of one solution, which runs by itself: nothing is materialized for it."""
    key = inputs.key(DEPLOYMENT)
    served = served_solution(inputs)

    @dg.asset_check(
        asset=key,
        name=check_rules.SERVED_VERSION.name,
        description=check_rules.SERVED_VERSION.description,
        blocking=check_rules.SERVED_VERSION.blocking,
        op_tags={SLOTS_TAG: VERSION_CHECK},
    )
    def served_version(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        return evaluate(key, _settled(settings, inputs.name, served))

    return served_version


def served_solution(inputs: SolutionInputs) -> ServedSolution:
    """The segments, and the channels of servers that the solution's YAML turns on."""
    serving, segments = inputs.solution.serving, inputs.solution.segments
    channels: list[tuple[Channel, bool]] = [("online", serving.online), ("stream", serving.stream)]
    return ServedSolution(segments.values if segments else [], [channel for channel, is_on in channels if is_on])


def evaluate(key: dg.AssetKey, observation: Observation) -> dg.AssetCheckResult:
    """The result, with every process in the metadata."""
    faults = observation.faults
    return check_rules.SERVED_VERSION.result(
        key,
        passed=not faults,
        metadata={
            "registry": dg.MetadataValue.null() if observation.version is None else observation.version,
            "patience_seconds": PATIENCE_SECONDS,
            "faults": dg.MetadataValue.json(faults[:MOST_EXAMPLES]),
            "processes": dg.MetadataValue.table(
                [
                    dg.TableRecord(
                        {
                            "machine": served.machine,
                            "channel": served.channel,
                            "pid": served.pid,
                            "version": "none" if served.version is None else str(served.version),
                            "segments": ", ".join(f"{segment} {version}" for segment, version in served.segments),
                            "problems": "; ".join(served.problems),
                        }
                    )
                    for served in observation.processes
                ],
                schema=dg.TableSchema(
                    [
                        dg.TableColumn("machine", "string"),
                        dg.TableColumn("channel", "string"),
                        dg.TableColumn("pid", "int"),
                        dg.TableColumn("version", "string"),
                        dg.TableColumn("segments", "string"),
                        dg.TableColumn("problems", "string"),
                    ]
                ),
            ),
        },
        description="; ".join(faults) or None,
    )


def _settled(settings: Settings, solution: str, served: ServedSolution) -> Observation:
    """The first observation without a fault, or the last one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        observation = observe(settings, solution, served)
        if not observation.faults or time.monotonic() > deadline:
            return observation
        time.sleep(_POLL_SECONDS)
