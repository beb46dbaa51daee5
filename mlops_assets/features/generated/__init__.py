"""dbt models that are compiled from YAML: sources of raw tables, spines. Written into `generated/` of the dbt project, as a person would."""
