"""Names and rules that the stages share: asset keys, settings, partitions, conditions, freshness, check rules.

Every folder but `schema` and `ml` may import it.
"""
