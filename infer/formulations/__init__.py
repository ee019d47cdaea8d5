"""Ways to compute the same encoder and decoder: the plain one, and one that pays on CPUs alone."""
