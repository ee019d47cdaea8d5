"""Cuts, batches and runs windows of files so that audio of any length gives the whole-file result."""
