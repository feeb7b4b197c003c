"""Where a tree search expands next: one rule a file, each a part."""
