"""A project as Dagster definitions: everything under its `defs/` and what acts on the whole graph.

The `definitions.py` of a project is `defs = dg.definitions(project_definitions)`, or merges `project_definitions()` with assets of its own.
"""

import gc

import dagster as dg

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.notifier import Notifier
from mlops_assets.components.loading import load_folders
from mlops_assets.components.solution_sensors import build_solution_sensors
from mlops_assets.components.step_executor import step_executor
from mlops_assets.core.conditions import build_conditions_sensors
from mlops_assets.core.environment_files import export_project_variables
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.maintenance.nightly import build_maintenance_assets, build_maintenance_job, build_maintenance_schedule
from mlops_assets.monitoring.lineage_events import build_lineage_events_sensor
from mlops_assets.monitoring.notifications import build_notification_sensors
from mlops_assets.monitoring.run_recovery import build_run_recovery_sensor
from mlops_assets.online_store.store import open_online_store
from mlops_assets.schema.remembering import remembering


def project_definitions() -> dg.Definitions:
    """All sources, dbt models and solutions of the project of this process, with the platform's resources and sensors.

    A folder of `defs/` that is wrong does not take the others down: see `load_folders`. Raises StackError when there is no project.
    """
    project = current_project()
    export_project_variables()
    # What is made here stays: looking for garbage among it takes a tenth of the time, now and whenever the process does so later.
    gc.disable()
    try:
        with remembering():
            loaded = load_folders(project.definitions_module, project.definitions_directory)
        definitions = with_platform(loaded)
    finally:
        gc.freeze()
        gc.enable()
    return definitions


def with_platform(loaded: dg.Definitions) -> dg.Definitions:
    """`loaded` with what it needs of the platform: its resources, its executor, and the sensors of the project and of its solutions."""
    return dg.Definitions.merge(platform_definitions(), loaded, dg.Definitions(sensors=build_solution_sensors(loaded)))


def platform_definitions() -> dg.Definitions:
    """What every project needs besides its own: the clients that assets ask for, the sensors that act on the whole graph, maintenance."""
    export_project_variables()
    settings = Settings.from_environment()
    sensors = [*build_conditions_sensors(), *build_notification_sensors(), build_run_recovery_sensor()]
    if settings.openlineage_url:
        sensors.append(build_lineage_events_sensor())
    return dg.Definitions(
        assets=build_maintenance_assets(),
        jobs=[build_maintenance_job()],
        schedules=[build_maintenance_schedule()],
        resources={
            "settings": settings,
            "lake": Lake.from_settings(settings),
            "registry": ModelRegistry.from_settings(settings),
            "online_store": open_online_store(settings),
            "notifier": Notifier.from_settings(settings),
        },
        sensors=sensors,
        executor=step_executor(settings),
    )
