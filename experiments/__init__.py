"""Experiments on real data, each a package of its own that runs from raw files to a report."""
