"""Dagster's daemon, which hears of runs and goes on when the clock is set back: `python -m mlops_assets.local.dagster_daemon`.

The daemon of the command `dagster-daemon` waits by the clock of the day. Set back by an hour, it would start no run and evaluate no
sensor for that hour. So the process ends then, supervisor starts it again, and no sensor waits for an evaluation that is to come.
"""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

TOLERATED_SECONDS = 5.0
"""A clock that is set back by less makes nothing wait for long."""

_LOOK_SECONDS = 2.0
_log = logging.getLogger(__name__)


def main() -> None:
    """Run the daemon until told to stop, or until the clock is set back."""
    name_lines()
    from dagster import DagsterInstance
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._daemon.controller import daemon_controller_from_instance
    from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers

    from mlops_assets.runs.event_storage import RunStorage
    from mlops_assets.runs.prompt_daemons import create_prompt_daemons
    from mlops_assets.runs.run_notices import listen

    threading.Thread(target=_end_when_set_back, name="clock", daemon=True).start()
    workspace = WorkspaceFileTarget([str(Settings.from_environment().dagster_home / "workspace.yaml")])
    setup_interrupt_handlers()
    with suppress(KeyboardInterrupt), capture_interrupts(), DagsterInstance.get() as instance:
        forget_evaluations_to_come(instance)
        daemons, hear = create_prompt_daemons(instance)
        storage = instance.run_storage
        assert isinstance(storage, RunStorage)
        threading.Thread(target=listen, args=(storage.engine, hear), name="notices", daemon=True).start()
        with daemon_controller_from_instance(
            instance, workspace, gen_daemons=lambda _: daemons, code_server_log_level="warning"
        ) as controller:
            controller.check_daemon_loop()


def forget_evaluations_to_come(instance: "DagsterInstance") -> int:
    """Let every sensor be due whose last evaluation began at a moment that has not come yet. Returns how many there are."""
    from dagster._core.scheduler.instigation import InstigatorType, SensorInstigatorData

    count = 0
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        if not isinstance(data, SensorInstigatorData):
            continue
        moments = (data.last_tick_start_timestamp or 0.0, data.last_tick_timestamp or 0.0)
        if max(moments) > time.time():
            past = data._replace(last_tick_start_timestamp=None, last_tick_timestamp=None)
            instance.update_instigator_state(state.with_data(past))
            count += 1
    return count


def _end_when_set_back() -> None:
    """End this process, as supervisor would, when the clock of the day has lost time against the one that only runs forward."""
    furthest = time.time() - time.monotonic()
    while (ahead := time.time() - time.monotonic()) > furthest - TOLERATED_SECONDS:
        furthest = max(furthest, ahead)
        time.sleep(_LOOK_SECONDS)
    _log.warning("The clock was set back by %.0f s: the daemon is started again.", furthest - ahead)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
