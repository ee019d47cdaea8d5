"""Measures the speed of the codec, and of reading audio, on this machine."""
