"""Where problems come from, how text divides into steps, and how an answer is verified."""
