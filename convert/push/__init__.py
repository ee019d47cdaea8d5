"""Publishes a checkpoint on the Hugging Face Hub: `earvae push`."""
