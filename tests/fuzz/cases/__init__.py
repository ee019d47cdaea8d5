"""The inputs of a campaign: whole ones, and what is done to them in each domain."""
