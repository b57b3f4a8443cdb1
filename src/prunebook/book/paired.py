"""Compare two methods seed by seed: by how much one leads, and whether that could be luck.

Chapter: book/comparison.ipynb
"""

from typing import NamedTuple

from pandas import DataFrame
from scipy import stats

CONFIDENCE = 0.95


class Lead(NamedTuple):
    """By how many points one method leads another: the mean over seeds, and its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def tie(self) -> bool:
        """Return whether the interval holds 0, so that the order of the two may be luck."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        """Write the lead with one decimal, or two where it is small: "0.4 (0.2 to 0.6)"."""
        digits = 2 if max(abs(self.low), abs(self.high)) < 1 else 1
        mean, low, high = (f"{value:+.{digits}f}".replace("-", "\u2212") for value in self[:3])
        return f"{mean} ({low} to {high})"


def lead(rows: DataFrame, one: str, other: str, column: str = "test_accuracy") -> Lead:
    """Return by how many percentage points the method `one` leads `other`, over the seeds that both have.

    The interval is that of Student's t for the differences of the pairs.

    Args:
        rows: One row for each method and seed, with the columns method, seed and `column` (0..1).
        one: The method whose lead is counted; it is negative where `one` lies behind.
        other: The method that it is compared with.
        column: What is compared.

    Raises:
        ValueError: The two methods have fewer than two seeds in common, or several rows for one seed.
    """
    pairs = [rows[rows["method"] == name].set_index("seed")[column] for name in (one, other)]
    if not all(each.index.is_unique for each in pairs):
        raise ValueError(
            f"rows must have one row for each method and seed, got more for {one!r} or {other!r}"
        )
    gaps = 100 * (pairs[0] - pairs[1]).dropna()
    if len(gaps) < 2:
        raise ValueError(f"rows must have two seeds of both {one!r} and {other!r}, got {len(gaps)}")
    reach = float(stats.t(len(gaps) - 1).ppf((1 + CONFIDENCE) / 2) * gaps.sem())  # eq-paired-interval
    mean = float(gaps.mean())
    return Lead(mean, mean - reach, mean + reach, len(gaps))
