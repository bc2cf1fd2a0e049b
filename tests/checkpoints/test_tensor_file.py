"""Files of tensors with other objects that trainers store in them."""

import argparse
import pathlib
import sys
import types

import numpy as np
import torch

from smtool.checkpoints.tensor_file import TensorFile


def test_other_objects_in_a_trainers_file_are_ignored_and_not_run(tmp_path, monkeypatch):
    """Options, a path, a score, and a callback class, which Lightning (and so LDM) uses as a key of its state."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    modules = {name: types.ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    modules[names[-1]].ModelCheckpoint = callback
    with monkeypatch.context() as written:
        for name, module in modules.items():
            written.setitem(sys.modules, name, module)
        weights = {"module.a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}
        options = argparse.Namespace(out=pathlib.PurePosixPath("runs/x"), lr=np.float64(1e-4))
        beside = {"args": options, "callbacks": {callback: {"best": np.float32(0.5), "scores": np.zeros(3)}}, "epoch": 3}
        torch.save({"state_dict": weights, **beside}, tmp_path / "last.ckpt")
    file = TensorFile(tmp_path / "last.ckpt")
    assert file.shapes == {"state_dict.a": (3,), "state_dict.b": (2, 2)}
    found = file.read({"state_dict.a": "x", "state_dict.b": "y"})
    assert torch.equal(found["x"], torch.arange(3.0)) and found["y"].dtype == torch.float32
