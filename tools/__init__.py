"""Programs of the repository that are no part of the package: they may import all of it."""
