"""The definitions of this project: a folder per source, set of dbt models or solution. Only the loading of definitions imports them."""
