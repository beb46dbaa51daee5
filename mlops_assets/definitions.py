"""Dagster's entry point of this repository, which is a project like any other."""

import dagster as dg

from mlops_assets.components.project import project_definitions

defs = dg.definitions(project_definitions)
