"""Benchmarks of step scorers, one a file."""
