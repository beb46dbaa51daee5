"""Names and rules that every folder shares: asset keys, settings, partitions, conditions, freshness, check rules."""
