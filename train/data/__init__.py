"""Training examples: recordings, random crops, synthetic music and batches."""
