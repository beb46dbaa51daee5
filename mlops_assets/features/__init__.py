"""dbt models as assets: translation, contracts, statistics, and the push of new values to the online store.

Imported by `training`, the later stages and the layers above.
"""
