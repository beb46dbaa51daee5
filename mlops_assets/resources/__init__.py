"""Clients of what lives outside the process: the lake, the model registry. Usable without Dagster."""
