"""Measuring the codec, and reading, on this machine."""
