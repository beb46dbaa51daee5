"""The Helm chart, rendered with the values of its examples."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.local.environment import scripts_directory

CHART = Path(__file__).parents[1] / "deployments" / "kubernetes"
EXAMPLES = ("small", "production", "ray")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(scripts_directory() / "helm"), *arguments], capture_output=True, text=True, check=False)


@cache
def objects(example: str) -> list[dict[str, Any]]:
    values = str(CHART / "examples" / f"{example}.yaml")
    rendered = helm("template", "parcels", str(CHART), "--namespace", "ml", "--values", values)
    assert rendered.returncode == 0, rendered.stderr
    return [each for each in yaml.safe_load_all(rendered.stdout) if each]


def named(example: str, kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in objects(example) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods(example: str) -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in objects(example)
        if each["kind"] in {"Deployment", "StatefulSet", "Job"}
    }


def containers(example: str) -> dict[str, dict[str, Any]]:
    return {
        container["name"]: container
        for pod in pods(example).values()
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    }
