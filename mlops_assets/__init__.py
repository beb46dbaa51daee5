"""An end-to-end MLOps platform as a Dagster asset graph."""
