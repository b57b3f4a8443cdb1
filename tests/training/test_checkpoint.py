"""Training states on disk: what comes back, and what is refused."""

import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunebook.training import checkpoint as checkpoints

ARGUMENTS = {"epochs": 3, "lr": 0.1, "penalty": None, "sizes": (3, 2)}  # JSON makes a list of the tuple
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
tensors = st.builds(
    lambda shape, dtype: (torch.rand(shape) * 100).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
)
states = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one, other):
    """Tell whether two states have the same structure, types and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        return equal and one.tolist() == other.tolist()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@given(states)
@settings(max_examples=60)
def test_any_state_comes_back_from_the_disk_as_it_was(state):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        checkpoints.write(path, ARGUMENTS, state)
        assert same(checkpoints.read(path, ARGUMENTS), state)
        assert os.listdir(folder) == ["run"]


WEIGHT = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("state", "back"),
    [
        (torch.zeros(2, 3).shape, (2, 3)),
        (OrderedDict(a=1), {"a": 1}),
        ([WEIGHT, WEIGHT, WEIGHT.T, WEIGHT[:, 1]], [WEIGHT, WEIGHT, WEIGHT.T, torch.tensor([1.0, 4.0])]),
    ],
    ids=["a kind of tuple", "a kind of dict", "tensors that share memory"],
)
def test_what_is_not_plain_comes_back_plain(state, back, tmp_path):
    checkpoints.write(tmp_path / "run", ARGUMENTS, state)
    assert same(checkpoints.read(tmp_path / "run", ARGUMENTS), back)


@pytest.mark.parametrize("thing", [object(), {1, 2}, np.zeros(2), len, b"bytes", {(1, object()): 2}])
def test_what_would_need_pickle_is_refused(thing, tmp_path):
    with pytest.raises(TypeError, match="cannot hold a"):
        checkpoints.write(tmp_path / "run", ARGUMENTS, {"thing": [thing]})
    assert not list(tmp_path.iterdir())


def test_other_arguments_are_refused_naming_only_what_differs(tmp_path):
    checkpoints.write(tmp_path / "run", ARGUMENTS, [1])
    with pytest.raises(ValueError, match="other arguments") as error:
        checkpoints.read(tmp_path / "run", {**ARGUMENTS, "epochs": 5, "seed": 1})
    assert "(epochs: 3 there, 5 here; seed: None there, 1 here)" in str(error.value)
