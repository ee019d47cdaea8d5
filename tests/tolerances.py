"""Every tolerance of the tests, each with its reason."""

# Recordings of the published code (float32), relative to the larger of 1 and the recording's peak. The recorded
# outputs stand up to 1.2e-5 of their peak from a float64 run of the same weights (options_transformer, the
# conformer's norms amplify rounding), the others 1e-7.
GOLDEN_OUTPUT = 2e-5
