"""Ways of computing that pay on a CPU alone; each says when, and how that was measured."""
