"""Serving of a promoted model: the bundle, and the online and stream servers.

Imports neither Dagster nor scikit-learn; the feature store, the stages and the layers above import it.
"""
