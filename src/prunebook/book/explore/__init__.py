"""Sliders to explore with: on the reader's own network, on its scores, through a run, or over a table.

Chapter: book/weights.ipynb
"""
