"""Programs that measure, compare or make something from training: run them with `python -m`."""
