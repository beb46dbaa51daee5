"""Dagster components, which turn YAML files into definitions. Imported by `definitions`, `local`, `operations` and `cli`."""
