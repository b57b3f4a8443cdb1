"""What the chapters use besides the library: set-up, checks, tables, sliders, pictures.

To prune your own network you need nothing from here: `import prunebook as pb` is the library.
"""

try:
    from prunebook.book import plots
    from prunebook.book.clinic import clinic
    from prunebook.book.explore.adaptive import explore_run, moment
    from prunebook.book.explore.comparison import explore_frontier
    from prunebook.book.explore.density import explore_ratio
    from prunebook.book.explore.frames import film
    from prunebook.book.explore.gains import explore_savings
    from prunebook.book.explore.gumbel import explore_gates, explore_thinning, gate_moment
    from prunebook.book.explore.pathways import explore_class
    from prunebook.book.explore.soft import explore_tau
    from prunebook.book.explore.weights import explore_k
    from prunebook.book.onepage import OnePage
    from prunebook.book.paired import lead
    from prunebook.book.stage import expect, is_quick, numbers, quick, setup, table, timing
    from prunebook.book.widgets import FrameSlider
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    if missing == "prunebook":
        raise
    raise ImportError(f'the stage of the book needs {missing}: pip install "prunebook[book]"') from error

__all__ = [
    "FrameSlider",
    "OnePage",
    "clinic",
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
    "film",
    "gate_moment",
    "is_quick",
    "lead",
    "moment",
    "numbers",
    "plots",
    "quick",
    "setup",
    "table",
    "timing",
]
