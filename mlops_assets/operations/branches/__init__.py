"""Branch environments: scratch environments of the working tree's code beside another environment, of which they only read.

`creation.py` fills the folder of a branch, `history.py` and `registry.py` what Dagster and MLflow know, `environments.py` makes, lists and
removes branches. Imported by the command `mlops branch` alone.
"""
