"""Benchmarks of step scorers: one a file, each a part."""
