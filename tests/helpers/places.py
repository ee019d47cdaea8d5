"""Where tests find what is recorded, and what they hand to processes of their own."""

from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
CASES = TESTS / "data" / "cases"  # audio and latent files as people have them
GOLDEN = TESTS / "data" / "golden"  # recordings of the published code on random weights, a folder a model
GOLDEN_MODELS = ("tiny_44k", "tiny_48k", "options_elu_nearest_tanh", "options_transformer")

# Recordings of other projects' own Oobleck; only those in GOLDEN are part of the repository.
SHARED_FAMILY = ROOT.parent / "shared" / "golden" / "family"
FAMILY = ("diffusers_acestep_tiny", "yue2_tiny", "diffusers_sao_tiny", "sat_oobleck_tiny", "sat_tied_tiny")
