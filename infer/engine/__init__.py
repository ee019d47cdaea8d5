"""Exact windows: what is cut, batched and compiled so that any length gives the whole-file result."""
