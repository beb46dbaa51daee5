"""Clients of the servers outside the process: MLflow, NATS, Dagster, notifications.

Imported by `runs`, `serving`, the stages and the layers above.
"""
