"""The online feature store: the newest values of every feature view, for reading in microseconds. Imports no dagster, no DuckDB.

`values` says how views, keys and values look, `store` what every store can do, `lmdb_store` and `redis_store` where it is kept.
"""
