"""Files that torch.save wrote: which state dict is meant, and what is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from made_up_tables import TABLES

from sam3_build.errors import BuildError
from sam3_build.weights import checkpoint_file, torch_file
from sam3_build.weights.tensors import FileTensor, StateDict


@pytest.mark.parametrize(
    ("names", "named", "says"),
    [
        (["model", "ema"], "emma", r"x\.pt has no state dict 'emma'; it holds 'model', 'ema'; did you mean 'ema'\?"),
        (["model"], "ema", r"x\.pt has no state dict 'ema'; it holds 'model'$"),
        ([""], "ema", r"x\.pt holds one state dict, which has no name; leave `weights: ema` out"),
        (["net", "avg"], None, r"x\.pt holds several state dicts: 'net', 'avg'; name .*`checkpoint: \{weights: net\}`"),
    ],
)
def test_a_state_dict_that_nobody_can_mean_is_refused_with_those_that_are_there(names, named, says):
    with pytest.raises(BuildError, match=says):
        torch_file.choose(
            "x.pt", dict.fromkeys(names, StateDict({"w": FileTensor(Path("x.pt"), "F32", (), 0, ())})), named
        )


MIXED = {"w": torch.ones(2), "width": 3, "name": "x"}


@pytest.mark.parametrize(
    ("content", "named", "says"),
    [
        ({"model": MIXED}, None, r"'model' is no state dict, .*: width \(int\), name \(str\); save a state dict"),
        ({"model": MIXED, "ema": {"w": torch.ones(2)}}, None, r"'model' is no .*, or name 'ema' in the manifest's"),
        ({"ema": {"module": MIXED}, "model": {"w": torch.ones(2)}}, "ema", r"'ema\.module' is no .*: width \(int\)"),
        (MIXED, None, r"odd\.pt: its content is no state dict, .*: width \(int\), name \(str\)"),
        ({"net": MIXED, "epoch": 3}, None, r"'net' is no state dict, .*: width \(int\)"),
    ],
)
def test_a_dict_that_is_hardly_tensors_is_refused_by_name_and_nothing_else_is_taken(content, named, says, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(BuildError, match=says):
        checkpoint_file.read(tmp_path / "odd.pt", TABLES, named)


def archive(kind, path):
    if kind == "TorchScript":
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    elif kind == "exported":
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path.with_suffix(".pt2"))
        path.with_suffix(".pt2").rename(path)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", "nothing")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("TorchScript", "is TorchScript, code and all, and no checkpoint; where the model was made, save a state dict"),
        ("exported", "is an exported program of torch.export, and no checkpoint"),
        ("zip", "is a zip file, but not one that torch.save wrote"),
    ],
)
def test_another_archive_is_called_what_it_is_and_nobody_is_advised_to_unpickle(kind, says, tmp_path):
    archive(kind, tmp_path / "odd.pt")
    with pytest.raises(BuildError) as caught:
        checkpoint_file.read(tmp_path / "odd.pt", TABLES)
    assert f"odd.pt {says}" in str(caught.value)
    assert "weights_only" not in str(caught.value) and "pickle" not in str(caught.value)
