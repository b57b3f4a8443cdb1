import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from prunebook.training import checkpoint as checkpoints

ARGUMENTS = {"epochs": 3, "lr": 0.1, "penalty": None}
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
@settings(max_examples=60, deadline=None)
def test_any_state_comes_back_from_the_disk_as_it_was(state):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        checkpoints.write(path, ARGUMENTS, state)
        assert same(checkpoints.read(path, ARGUMENTS), state)
        assert os.listdir(folder) == ["run"]


@given(states)
@settings(max_examples=60, deadline=None)
def test_unflatten_undoes_flatten(state):
    assert same(checkpoints.unflatten(*checkpoints.flatten(state)), state)


def test_flatten_separates_the_tensors_in_order():
    skeleton, found = checkpoints.flatten({"w": torch.ones(2), "rest": (1, torch.zeros(3))})
    assert skeleton == {"dict": [["w", {"tensor": "0"}], ["rest", {"tuple": [1, {"tensor": "1"}]}]]}
    assert {key: tensor.tolist() for key, tensor in found.items()} == {"0": [1, 1], "1": [0, 0, 0]}


def test_kinds_of_dicts_and_tuples_become_plain_ones():
    state = {"shape": torch.zeros(2, 3).shape, "ordered": OrderedDict(a=1)}
    assert same(checkpoints.unflatten(*checkpoints.flatten(state)), {"shape": (2, 3), "ordered": {"a": 1}})


def test_tensors_that_share_memory_or_are_views_can_be_written(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    checkpoints.write(tmp_path / "run", {}, [weight, weight, weight.T, weight[:, 1]])
    read = checkpoints.read(tmp_path / "run", {})
    assert same(read, [weight, weight, weight.T.contiguous(), torch.tensor([1.0, 4.0])])


@pytest.mark.parametrize("thing", [object(), {1, 2}, np.zeros(2), len, b"bytes", {(1, object()): 2}])
def test_what_would_need_pickle_is_refused(thing, tmp_path):
    with pytest.raises(TypeError, match="cannot hold a"):
        checkpoints.write(tmp_path / "run", ARGUMENTS, {"thing": [thing]})
    assert not list(tmp_path.iterdir())


def test_digest_sees_one_changed_bit_a_dtype_and_a_shape():
    base = torch.zeros(4)
    changed = base.clone()
    changed[2] = -0.0
    others = [changed, base.int(), base.reshape(2, 2), [base], base[:3]]
    digests = {checkpoints.digest(state) for state in [base, *others]}
    assert len(digests) == 6
    assert checkpoints.digest(base) == checkpoints.digest(torch.zeros(4))


def test_the_folder_is_made(tmp_path):
    path = tmp_path / "runs" / "today" / "dense"
    checkpoints.write(path, ARGUMENTS, [1])
    assert checkpoints.read(path, ARGUMENTS) == [1]


@pytest.mark.parametrize("stage", ["save_file", "os.replace"])
def test_a_write_that_breaks_off_leaves_the_old_file_whole(stage, tmp_path, monkeypatch):
    path = tmp_path / "run"
    checkpoints.write(path, ARGUMENTS, {"w": torch.ones(3)})

    def break_off(tensors, partial, **_):
        Path(partial).write_bytes(b"half a file")
        raise OSError("no space left on device")

    replacement = break_off if stage == "save_file" else lambda *_: break_off({}, tmp_path / "run.partial")
    with monkeypatch.context() as patch:
        patch.setattr(f"prunebook.training.checkpoint.{stage}", replacement)
        with pytest.raises(OSError, match="no space left"):
            checkpoints.write(path, ARGUMENTS, {"w": torch.zeros(3)})
    assert same(checkpoints.read(path, ARGUMENTS), {"w": torch.ones(3)})
    checkpoints.write(path, ARGUMENTS, {"w": torch.zeros(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_an_error_that_names_it(share, tmp_path):
    path = tmp_path / "run"
    checkpoints.write(path, ARGUMENTS, {"w": torch.ones(100)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"run is damaged or is not a checkpoint"):
        checkpoints.read(path, ARGUMENTS)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"prunebook": "3"}, {"prunebook": "{"}])
def test_a_foreign_safetensors_file_is_refused(metadata, tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "weights", metadata=metadata)
    with pytest.raises(ValueError, match="weights is damaged or is not a checkpoint of fit"):
        checkpoints.read(tmp_path / "weights", ARGUMENTS)


def test_a_text_file_is_refused(tmp_path):
    (tmp_path / "notes").write_text("These are my notes on pruning.")
    with pytest.raises(ValueError, match="notes is damaged or is not a checkpoint of fit"):
        checkpoints.read(tmp_path / "notes", ARGUMENTS)


def test_other_arguments_are_refused_naming_only_what_differs(tmp_path):
    checkpoints.write(tmp_path / "run", ARGUMENTS, [1])
    with pytest.raises(ValueError, match="other arguments") as error:
        checkpoints.read(tmp_path / "run", {"epochs": 5, "lr": 0.1, "penalty": None, "seed": 1})
    assert "(epochs: 3 there, 5 here; seed: None there, 1 here)" in str(error.value)


def test_arguments_that_only_change_kind_on_the_way_through_json_are_the_same(tmp_path):
    checkpoints.write(tmp_path / "run", {"sizes": (3, 2)}, [1])
    assert checkpoints.read(tmp_path / "run", {"sizes": (3, 2)}) == [1]
