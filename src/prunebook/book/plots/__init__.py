"""Figures: each function takes data and axes, and returns the axes.

The chapters use the functions listed here; the sliders use a few more from the modules.

Chapter: book/dense.ipynb
"""

from prunebook.book.plots.curves import (
    accuracy_bands,
    accuracy_curve,
    effective_share,
    error_curves,
    frontier,
    frontier_of,
    kept_axis,
    loglog,
    paths,
    removal_curves,
    temperature_curve,
    training_curves,
)
from prunebook.book.plots.gains import speed_curves, storage_forms
from prunebook.book.plots.masks import (
    chances_through,
    density_at,
    gate_histogram,
    kept_per_pixel,
    mask_curve,
    show_images,
    show_weights,
    weight_histogram,
    weight_moves,
)
from prunebook.book.plots.networks import importance_maps, pathway_drawing, symmetry_matrix
from prunebook.book.plots.style import BLUE, COLOURS, GREEN, GREY, ORANGE, RED, SKY, figure

__all__ = [
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "ORANGE",
    "RED",
    "SKY",
    "accuracy_bands",
    "accuracy_curve",
    "chances_through",
    "density_at",
    "effective_share",
    "error_curves",
    "figure",
    "frontier",
    "frontier_of",
    "gate_histogram",
    "importance_maps",
    "kept_axis",
    "kept_per_pixel",
    "loglog",
    "mask_curve",
    "paths",
    "pathway_drawing",
    "removal_curves",
    "show_images",
    "show_weights",
    "speed_curves",
    "storage_forms",
    "symmetry_matrix",
    "temperature_curve",
    "training_curves",
    "weight_histogram",
    "weight_moves",
]
