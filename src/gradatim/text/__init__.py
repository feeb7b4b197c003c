"""How problems and steps are put in words and tokens: prompts, transcripts, where a step and a solution end."""
