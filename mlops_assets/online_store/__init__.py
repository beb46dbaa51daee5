"""The online feature store: the newest values of every feature view, read in microseconds. Imports neither Dagster nor DuckDB.

`values` holds the encoding of views, keys and values, `store` the protocol of every store, `lmdb_store` and `redis_store` the two
stores. Imported by `runs`, the feature store, `serving`, the stages and the layers above.
"""
