"""The configuration files of the servers: the templates beside this module, filled in for this installation."""

import os
import shlex
import sys
from pathlib import Path

from mlops_assets.access.credentials import PLATFORM_ACCOUNT, event_stream_caller, event_stream_platform, event_stream_system
from mlops_assets.core.environment_files import environment_name, environment_prefix
from mlops_assets.core.listening import bracketed
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.core.text_templates import text_templates
from mlops_assets.local import postgres
from mlops_assets.local.environment import scripts_directory, withheld_variables
from mlops_assets.local.services import services
from mlops_assets.local.supervisor import MARKER_VARIABLE
from mlops_assets.runs.slots import SLOTS_TAG, slots

TEMPLATE_DIRECTORY = Path(__file__).parent / "templates"


def render_files(settings: Settings) -> dict[Path, str]:
    """The text of every configuration file, by the path it belongs at. Makes the secrets that they hold when there are none."""
    environment = text_templates(TEMPLATE_DIRECTORY)
    environment.filters["argument"] = _supervisor_argument
    environment.filters["literal"] = _supervisor_literal
    environment.filters["bracketed"] = bracketed
    variables = {
        "services": {service.name: service for service in services(settings)},
        "withheld_variables": withheld_variables,
        "marker_variable": MARKER_VARIABLE,
        "nats_platform": event_stream_platform(settings),
        "nats_caller": event_stream_caller(settings),
        "nats_system": event_stream_system(settings),
        "platform_account": PLATFORM_ACCOUNT,
        "environment_name": environment_name(),
        "environment_prefix": environment_prefix(),
        "project": current_project(),
        "python": sys.executable,
        "scripts": scripts_directory(),
        "postgres_executable": postgres.executable() if settings.postgres_url is None else None,
        "postgres_user": postgres.user_for_supervisor(),
        "is_root": os.geteuid() == 0,
        "settings": settings,
        "slots": slots(),
        "slots_tag": SLOTS_TAG,
    }
    return {
        path: environment.get_template(template).render(variables)
        for template, path in (
            ("supervisord.conf.j2", settings.supervisor_configuration),
            ("nats.conf.j2", settings.home / "nats.conf"),
            ("dagster.yaml.j2", settings.dagster_home / "dagster.yaml"),
            ("workspace.yaml.j2", settings.dagster_home / "workspace.yaml"),
        )
    }


def write_files(files: dict[Path, str]) -> None:
    """Write the files, readable by the owner alone: the address of a Postgres may hold its password."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)


def changed_files(files: dict[Path, str]) -> list[Path]:
    """Those of the files that are missing or differ on disk."""
    return [path for path, text in files.items() if not path.exists() or path.read_text() != text]


def _supervisor_argument(value: object) -> str:
    """`value` as one argument of a supervisor command line."""
    return _supervisor_literal(shlex.quote(str(value)))


def _supervisor_literal(value: object) -> str:
    """`value` in a supervisor file, where a per cent sign begins an expansion."""
    return str(value).replace("%", "%%")
