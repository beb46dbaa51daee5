"""Dagster components: how a YAML file becomes definitions."""
