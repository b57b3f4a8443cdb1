"""Networks that the tests of this folder read: one that is done in the head, and chains drawn at random."""

from hypothesis import settings
from hypothesis import strategies as st
from small import drawn

# y0 = 2 h0 + 3 h1, h0 = x0 - x1, h1 = 4 x1; h2 feeds nothing, h3 hears nothing.
HEAD = ([[1.0, -1], [0, 4], [5, 5], [0, 0]], [[2.0, 3, 0, 7]])

SEEDS = st.integers(0, 2**31)
SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=5)
WEIGHTS = st.builds(drawn, SIZES, st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]), SEEDS)  # one matrix per layer
some = settings(max_examples=50)
