"""The engines that run work which splits into parts: this process, or a Ray cluster.

Imported by the stages, which do not know which of them runs. Imports the lake, the settings and what is below them; no Dagster.
"""
