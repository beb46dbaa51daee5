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
    "raw": "its columns are those of a file or a database outside of the graph; the metadata of a load names the files",
    "seed": "its columns are those of a file of the dbt project",
}
"""Kinds of tables whose columns come from no other table."""
