"""One training step as pure functions: updates, schedules and the weights to begin with."""
