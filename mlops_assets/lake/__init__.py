"""The lake: DuckLake tables with their catalog in Postgres. Connections, writes, snapshots, changes of columns."""
