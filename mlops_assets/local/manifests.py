"""Kubernetes manifests of what the pods of runs need. They are rendered for somebody who applies them; nothing here talks to a cluster."""

from dataclasses import replace
from pathlib import Path

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.core.text_templates import text_templates
from mlops_assets.local.configuration import TEMPLATE_DIRECTORY, RunsInPods, dagster_yaml

STATE_FOLDER = Path("/var/lib/mlops")
"""`MLOPS_HOME` in the pods."""


def render_manifests(settings: Settings, pods: RunsInPods, *, storage: str) -> str:
    """The manifests, with a volume of `storage` (a quantity of Kubernetes, such as 50Gi) for the state folder.

    Raises StackError where `settings` lack a server that pods can reach: those of the local stack listen on 127.0.0.1 alone.
    """
    servers = {
        "MLOPS_POSTGRES_URL": settings.postgres_url,
        "MLOPS_NATS_URL": settings.nats_url,
        "MLOPS_MLFLOW_URL": settings.mlflow_server,
    }
    if missing := [name for name, address in servers.items() if address is None]:
        raise StackError(
            f"Pods cannot reach the servers of the local stack: {', '.join(missing)} must name others.",
            remedy="Set them in the environment, .env or deployments/, then try again.",
        )
    inside = replace(settings, home=STATE_FOLDER)
    variables = {
        "MLOPS_HOME": str(STATE_FOLDER),
        "DAGSTER_HOME": str(inside.dagster_home),
        "MLOPS_MLFLOW_URL": inside.mlflow_url,
        "MLFLOW_TRACKING_URI": inside.mlflow_url,
        "MLOPS_WARM_RUNS": "off",
        **({"MLOPS_STORAGE": settings.storage} if settings.storage else {}),
    }
    template = text_templates(TEMPLATE_DIRECTORY).get_template("kubernetes.yaml.j2")
    return template.render(pods=pods, storage=storage, variables=variables, dagster_yaml=dagster_yaml(inside, pods))
