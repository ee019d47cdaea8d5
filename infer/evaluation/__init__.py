"""Compares reconstructions with originals: pairs, metrics and the report page."""
