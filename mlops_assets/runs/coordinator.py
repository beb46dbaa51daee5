"""The run coordinator: Dagster's queue, which gives every run its slots and the name of the person who launched it."""

from dagster import DagsterRun, DagsterRunStatus
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

from mlops_assets.access.launchers import signed_in_tags
from mlops_assets.runs.slots import slots, slots_of


class SlotsRunCoordinator(QueuedRunCoordinator):
    """Classes a run by the steps that it will execute: a job, a sensor, a backfill, a retry and a person in the UI come this way."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tag the run with its slots and who signed in, and queue it."""
        run = context.dagster_run
        if person := signed_in_tags(getattr(context.workspace, "source", None)):
            # A run that is executed again has the tags of the one before.
            self._instance.add_run_tags(run.run_id, person)
        if run.status is DagsterRunStatus.NOT_STARTED and run.execution_plan_snapshot_id is not None:
            plan = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            executed = [step.tags or {} for step in plan.steps if step.key in plan.step_keys_to_execute]
            name = slots_of(executed)
            self._instance.add_run_tags(run.run_id, slots()[name].tags(name))
        return super().submit_run(context)
