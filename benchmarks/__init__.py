"""Speed against the libraries that do the same work, as ratios measured in one run."""
