"""Measures, in ten minutes at most, everything for which an accelerator is needed."""
