"""Reward models of real text, from scratch on two cores: a whole pipeline on GSM8K and PRMBench.

``python -m experiments.real_text --data DIR --output DIR`` trains a tokenizer and a small language model on the
training files alone, makes reward models of it, and measures them on held-out solutions of four real models and on
PRMBench. The language model is weak on purpose: the point is that every part is real and measured.
"""
