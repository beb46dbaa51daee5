"""The feature store on the lake: registry, point-in-time join, usage, column lineage, statistics.

It has no assets; the stages and the layers above import it.
"""
