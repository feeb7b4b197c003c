"""What ends a step: one boundary a file, each a part."""
