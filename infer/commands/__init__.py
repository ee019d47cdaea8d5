"""The commands that work on files: reconstruct, encode, decode, evaluate and info."""
