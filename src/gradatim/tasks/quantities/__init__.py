"""Quantities that are defined by each other: graphs of them, drawn, told in sentences, solved and judged step by step.

What :mod:`gradatim.tasks.word_problems` is made of.
"""
