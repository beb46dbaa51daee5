"""The lake: DuckLake tables with their catalog in Postgres.

Connections, writes, snapshots, changes of columns; imported by `runs`, the feature store, the stages and the layers above.
"""
