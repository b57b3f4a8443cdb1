"""Sliders for exploring your own network, its scores, a training run, or a table of results.

Chapter: book/weights.ipynb
"""
