"""Reward models of real text, from scratch on two cores: GSM8K and PRMBench from raw files to tables.

``python -m experiments.real_text --data DIR --output DIR`` prepares the data and runs the recipes beside this file: one
trains a tokenizer and a small language model on the training files alone, the other makes a reward model of it and
measures it on held-out solutions of four real models and on PRMBench. The language model is weak on purpose: the point
is that every part is real and measured.
"""
