"""`earvae demo`: a page to drop a song on, hear what a model makes of it, and see what was lost."""
