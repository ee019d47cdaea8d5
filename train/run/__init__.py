"""What surrounds the steps of a run: the loop, its folder, checkpoints and exports."""
