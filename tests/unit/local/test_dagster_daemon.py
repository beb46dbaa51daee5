"""The daemon after the clock was set back; that it ends then is seen in the chaos suite."""

import time

from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.test_utils import instance_for_test
from run_instances import REMOTE

from mlops_assets.local.dagster_daemon import forget_evaluations_to_come


def test_a_sensor_that_was_evaluated_in_the_future_is_due_and_keeps_its_cursor() -> None:
    now = time.time()
    with instance_for_test() as instance:
        for name, started in (("early", now + 3600), ("late", now - 60)):
            data = SensorInstigatorData(
                last_tick_timestamp=started, last_tick_start_timestamp=started, cursor=name, min_interval=30
            )
            origin = RemoteInstigatorOrigin(REMOTE.repository_origin, name)
            state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
            instance.add_instigator_state(state)
        assert forget_evaluations_to_come(instance) == 1
        states = {state.name: state.instigator_data for state in instance.all_instigator_state()}
        assert forget_evaluations_to_come(instance) == 0
    assert states["early"] == SensorInstigatorData(cursor="early", min_interval=30)
    assert states["late"].last_tick_start_timestamp == now - 60  # type: ignore[union-attr]
