"""What judges a step: Monte-Carlo rollouts and process reward models."""
