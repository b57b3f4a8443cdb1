"""Sealed files: damaged, altered, foreign and of another kind; and writing that breaks off."""

import io
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from small import network

import prunebook as pb
from prunebook.tools import sealed
from prunebook.training import checkpoint

CONTENTS, TENSORS = {"a": [1, 2.5, None], "b": {"c": "d"}}, {"w": torch.arange(3.0), "n": torch.tensor(7)}


@pytest.fixture
def path(tmp_path):
    sealed.write(tmp_path / "file", "a letter", CONTENTS, TENSORS)
    return tmp_path / "file"


def test_what_is_written_comes_back(path):
    contents, tensors = sealed.read(path, "a letter")
    assert contents == {"kind": "a letter", **CONTENTS}
    assert tensors.keys() == TENSORS.keys()
    assert all(tensors[name].equal(TENSORS[name]) for name in TENSORS)


def test_every_altered_byte_is_told_or_alters_nothing(path):
    whole, before, told = path.read_bytes(), sealed.digest([*sealed.read(path, "a letter")]), []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert sealed.digest([*sealed.read(path, "a letter")]) == before
        except ValueError as error:
            told.append(str(path) in str(error))
    assert all(told)
    assert len(told) > len(whole) - 3


def test_every_truncated_file_is_told(path):
    whole = path.read_bytes()
    for broken in (*(whole[:end] for end in range(len(whole))), whole + b"\0", whole + whole):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"file is damaged or is not a letter"):
            sealed.read(path, "a letter")


def test_foreign_files_are_told(tmp_path):
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer)
    contents = [b"import os", pickle.dumps(network()), buffer.getvalue(), bytes(1000), b"\xff" * 1000]
    contents.append((100000).to_bytes(8, "little") + b"[" * 100000)
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    save_file(network().state_dict(), tmp_path / "weights")
    for number, text in enumerate(("[1]", "1", '"a"', "{}", "[" * 10000)):
        save_file(network().state_dict(), tmp_path / f"metadata{number}", {"prunebook": text})
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=f"{path.name} is damaged or is not a file of save_model"):
            pb.load_model(path)
        with pytest.raises(ValueError, match=f"{path.name} is damaged or is not a checkpoint of fit"):
            checkpoint.read(path, {})
    with pytest.raises(FileNotFoundError):
        pb.load_model(tmp_path / "none")


@pytest.mark.parametrize("kind", ["a checkpoint of fit", "a file of save_model in format 3"])
def test_a_file_of_another_kind_or_format_is_told(kind, path):
    sealed.write(path, kind, CONTENTS, TENSORS)
    with pytest.raises(
        ValueError, match=f"file is {kind}, and cannot be read as a file of save_model in for"
    ):
        pb.load_model(path)


@pytest.mark.parametrize("stage", ["save_file", "os.replace"])
def test_writing_that_breaks_off_leaves_the_old_file(stage, path, monkeypatch):
    def break_off(*_, **__):
        path.with_name("file.partial").write_bytes(b"half a file")
        raise OSError("disk full")

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(f"prunebook.tools.sealed.{stage}", break_off)
        with pytest.raises(OSError, match="disk full"):
            sealed.write(path, "a letter", {}, {})
    assert path.read_bytes() == before
    sealed.write(path, "a letter", {}, TENSORS)
    assert sealed.read(path, "a letter")[0] == {"kind": "a letter"}
    assert os.listdir(path.parent) == ["file"]


def test_flatten_separates_the_tensors_in_order():
    skeleton, found = sealed.flatten({"w": torch.ones(2), "rest": (1, torch.zeros(3))})
    assert skeleton == {"dict": [["w", {"tensor": "0"}], ["rest", {"tuple": [1, {"tensor": "1"}]}]]}
    assert {key: tensor.tolist() for key, tensor in found.items()} == {"0": [1, 1], "1": [0, 0, 0]}


def test_digest_sees_one_changed_bit_a_dtype_and_a_shape():
    base = torch.zeros(4)
    changed = base.clone()
    changed[2] = -0.0
    others = [changed, base.int(), base.reshape(2, 2), [base], base[:3]]
    assert len({sealed.digest(state) for state in [base, *others]}) == 6
    assert sealed.digest(base) == sealed.digest(torch.zeros(4))
