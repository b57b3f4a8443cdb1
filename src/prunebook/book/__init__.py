"""The stage on which the chapters perform: set-up, checks, tables, sliders, pictures.

An engineer who prunes her own network needs nothing from here: `import prunebook as pb` is the library.
"""

from prunebook.book import plots
from prunebook.book.explore import (
    explore_class,
    explore_frontier,
    explore_gates,
    explore_k,
    explore_ratio,
    explore_run,
    explore_savings,
    explore_tau,
    explore_thinning,
    gate_moment,
    moment,
)
from prunebook.book.onepage import OnePage
from prunebook.book.stage import expect, is_quick, quick, setup, table
from prunebook.book.widgets import FrameSlider

__all__ = [
    "FrameSlider",
    "OnePage",
    "expect",
    "explore_class",
    "explore_frontier",
    "explore_gates",
    "explore_k",
    "explore_ratio",
    "explore_run",
    "explore_savings",
    "explore_tau",
    "explore_thinning",
    "gate_moment",
    "is_quick",
    "moment",
    "plots",
    "quick",
    "setup",
    "table",
]
