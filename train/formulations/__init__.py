"""The parts of a training step that have a form of their own for CPUs; `choice` takes it or the plain one.

Everything else in `train/` reads as plain mathematics.
"""
