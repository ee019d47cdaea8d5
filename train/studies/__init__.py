"""Studies around training: free music to train on, and what fixed transforms of the same rate reach."""
