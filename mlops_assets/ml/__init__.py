"""Models and monitoring as pure functions on Arrow, pandas and numpy: no Dagster, no lake, no registry in here."""
