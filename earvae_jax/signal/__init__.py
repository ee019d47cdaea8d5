"""Signal mathematics: spectra, weightings, loudness and metrics. Nothing here knows the model."""
