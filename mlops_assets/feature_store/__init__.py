"""The feature store on the lake: registry, point-in-time join, usage, column lineage, statistics. No assets."""
