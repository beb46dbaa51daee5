"""Monitoring windows of predictions: data quality, drift, performance, their page, the retraining decision, and notifications.

Imported by `components` and the layers above.
"""
