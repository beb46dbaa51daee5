"""What a person does to a running platform: train, promote, trace, replay, demo. No printing."""
