"""The schedule that trains a solution again, when its YAML declares one."""

from collections.abc import Iterator

import dagster as dg

from mlops_assets.core.keys import DEPLOYMENT
from mlops_assets.core.schedules import build_schedule
from mlops_assets.monitoring.retraining_sensor import running_training
from mlops_assets.stages.inputs import SolutionInputs

PURPOSE = "training"
ACTOR = "schedule"
"""Who deploys a version that a schedule had trained."""


def build_retraining_schedules(inputs: SolutionInputs) -> list[dg.ScheduleDefinition]:
    """The schedule of one solution; none when its YAML has none.

    A tick trains for the date after the newest partition of the spine, that is on all data there is. Where nothing changed since the
    last training, the stages find the version that is there.
    """
    schedule = inputs.solution.schedule
    if schedule is None:
        return []
    spine = inputs.spine_key

    def train(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if running := running_training(context.instance, inputs.name):
            yield dg.SkipReason(f"The training {running} is running.")
            return
        known = inputs.partitions.get_partition_keys(current_time=context.scheduled_execution_time)
        built = context.instance.get_materialized_partitions(spine).intersection(known)
        if not built:
            yield dg.SkipReason(f"No partition of {inputs.spine.table} is there yet.")
            return
        later = [key for key in known if key > max(built)] if inputs.solution.spine.has_time else []
        configuration = {"actor": ACTOR, "reason": f"schedule {schedule.cron}"}
        yield dg.RunRequest(
            run_key=context.scheduled_execution_time.isoformat(),
            partition_key=later[0] if later else max(built),
            run_config={"ops": {inputs.key(DEPLOYMENT).to_python_identifier(): {"config": configuration}}},
        )

    what = f"Trains {inputs.name} on all data there is, and deploys the version when it passes its gates."
    return [build_schedule(schedule, owner=inputs.name, purpose=PURPOSE, what=what, evaluate=train)]
