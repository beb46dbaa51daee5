"""Why some assets lack what the Dagster UI shows of the others. No tests here."""

WITHOUT_COLUMNS = {
    "model": "a version in MLflow",
    "segment_model": "a version in MLflow",
    "deployment": "which version predicts, and its bundle on this machine",
    "segment_deployment": "which version predicts the rows of a segment",
    "challenger": "what the servers try beside the champion",
    "online_features": "the online store, keyed by entity",
    "monitoring_report": "an HTML page for each window",
}
"""Stages that are no table."""

WITHOUT_UPSTREAM = {
    "platform/lake_maintenance": "no table: files and snapshots of the whole lake",
    "platform/model_maintenance": "no table: MLflow's own database and files",
    "platform/report_maintenance": "no table: HTML pages",
    "platform/run_maintenance": "no table: Dagster's own database",
    "staging/airport_additions": "a file of the dbt project",
    "staging/us_federal_holidays": "a file of the dbt project",
}
"""Tables whose columns come from no other table, as those of all raw tables, which come from outside of the graph."""
