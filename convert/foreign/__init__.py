"""What other projects' files look like: their keys, their configs, TorchScript, and what is no Oobleck."""
