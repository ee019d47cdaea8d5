"""Audio files and arrays: finding, reading, resampling, mixing and writing them."""
