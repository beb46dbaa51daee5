"""Models and monitoring as pure functions on Arrow, pandas and numpy: no Dagster, no lake, no registry.

Every layer above `core` may import it.
"""
