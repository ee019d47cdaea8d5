"""A fuzz campaign: mutated inputs in great number; each must end in a result or in one clear line."""
