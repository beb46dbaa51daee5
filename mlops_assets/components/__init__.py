"""Dagster components, which turn YAML files into definitions. Imported by `defs`, `definitions`, `local`, `operations` and `cli`."""
