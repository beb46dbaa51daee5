"""Runs of Dagster: how they are queued, started, watched and recovered. Imported by the stages, `local` and the layers above."""
