"""Windows of predictions: quality, drift, performance, their page, the retraining decision, and notifications."""
