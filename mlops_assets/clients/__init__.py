"""Clients of the servers outside the process: MLflow, NATS, Dagster, notifications. Usable without Dagster's libraries."""
