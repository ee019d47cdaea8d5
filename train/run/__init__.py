"""What surrounds the steps of a run: its folder, checkpoints, validation, progress and exports."""
