"""Accelerators that programs are compiled for without having one, and what their compiled programs show."""
