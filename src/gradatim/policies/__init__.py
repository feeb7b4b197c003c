"""What proposes next steps: the tree-cached transformers engine, and a scripted policy for tests and teaching."""
