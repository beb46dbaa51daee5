"""dbt models as assets: translation, contracts, statistics, and their newest values in the online store."""
