"""What a person sees of a run: progress, curves, validation, whole songs, warnings and the summary."""
