"""A small model and a few seconds of music in the package: `earvae_jax.train.studies.make_demo` made them."""

from pathlib import Path

MODEL = Path(__file__).parent / "demo_44k.safetensors"
CLIP = Path(__file__).parent / "demo_clip.flac"
