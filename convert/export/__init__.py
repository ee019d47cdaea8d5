"""The model as programs that run without this package: StableHLO for JAX, ONNX for everything else."""
