"""Residual units as kernels of Pallas, for the narrow levels of GPUs and TPUs, where memory is the limit."""
