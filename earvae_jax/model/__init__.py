"""The model: what a config describes, layer by layer, in plain mathematics on `[B, T, C]`."""
