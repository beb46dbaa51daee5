"""When things run: partitions, conditions and sensors."""
