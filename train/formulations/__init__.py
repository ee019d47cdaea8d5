"""Parts of a training step that a CPU computes in ways of its own: here alone is chosen between the two.

Everything else in `train/` reads as plain mathematics.
"""
