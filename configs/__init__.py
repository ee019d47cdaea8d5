"""Published model configurations and training recipes, as JSON."""
