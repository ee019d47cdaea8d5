"""The parts, each a program of its own that writes what it found to a JSON file."""
