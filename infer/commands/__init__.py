"""The commands that work on files: reconstruct, encode, decode and info."""
