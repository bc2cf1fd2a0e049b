"""Mutated checkpoints: safetensors of smtool and of other tools, pickles, pickles that would run code, diffusers folders."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from campaign.mutation import mutated_bytes, mutated_value
from campaign.sandbox import Case, Sandbox
from smtool import open_tokenizer
from smtool.checkpoints.transformers.read import read_transformer
from smtool.commands.export import export
from smtool.commands.inspect.inspection import describe
from smtool.features.weights import load_state
from smtool.inference.diffusion_model import read_diffusion
from smtool.report.console import Console

_SAFE = ("old/runs/ae/ckpt.safetensors", "old/runs/sit/ckpt.safetensors", "old/runs/uvit/ckpt.safetensors",
         "weights/diffusers/diffusion_pytorch_model.safetensors")  # fmt: skip
_PICKLES = ("weights/plain.pt", "weights/trainer.ckpt", "weights/nested.bin", "weights/taesd_encoder.pth")


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    return rng.choice((_safetensors, _safetensors, _safetensors, _pickle, _hostile_pickle, _folder))(originals, rng, box)


def _safetensors(originals: Path, rng: Random, box: Sandbox) -> Case:
    name = rng.choice(_SAFE)
    data, path = _bytes(originals / name), box.inside / "ckpt.safetensors"
    match rng.choice(("bytes", "header", "metadata", "metadata", "metadata", "tensors")):
        case "bytes":
            what, data = mutated_bytes(data, rng)
            path.write_bytes(data)
        case "header":
            header, rest = _parts(data)
            what, header = mutated_value(header, rng)
            path.write_bytes(_joined(header, rest))
        case "metadata":
            header, rest = _parts(data)
            known = header.get("__metadata__", {})
            what, values = mutated_value({key: json.loads(value) for key, value in known.items()} if known else {"x": 1}, rng)
            if isinstance(values, dict):
                header["__metadata__"] = {str(key): json.dumps(value) for key, value in values.items()}
            path.write_bytes(_joined(header, rest))
        case _:
            what = _other_tensors(originals / name, path, rng)
    return Case(f"{name}: {what}", lambda: _read(path, box, rng.random()))


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _joined(header: Any, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def _other_tensors(source: Path, path: Path, rng: Random) -> str:
    """Write the file with one tensor of another shape, type or value, or under another name."""
    tensors, metadata = dict(load_file(source)), _parts(_bytes(source))[0].get("__metadata__")
    name = rng.choice(sorted(tensors))
    value, what = (
        tensors.pop(name),
        rng.choice(("lost", "renamed", "cut", "nan", "inf", "int", "half", "scalar", "extra axis", "big")),
    )
    changed = {
        "cut": lambda: value[: len(value) // 2] if value.ndim else value,
        "nan": lambda: torch.full_like(value, torch.nan),
        "inf": lambda: torch.full_like(value, torch.inf),
        "int": lambda: value.to(torch.int32),
        "half": lambda: value.half(),
        "scalar": lambda: torch.tensor(1.0),
        "extra axis": lambda: value[None].clone(),
        "big": lambda: value * 1e30,
    }
    if what == "renamed":
        tensors[name + "x"] = value
    elif what != "lost":
        tensors[name] = changed[what]().contiguous().clone()
    save_file(tensors, path, metadata)
    return f"{name} {what}"


def _pickle(originals: Path, rng: Random, box: Sandbox) -> Case:
    name = rng.choice(_PICKLES)
    data, path = _bytes(originals / name), box.inside / Path(name).name
    if rng.random() < 0.5:  # inside the archive, whose checksums would else report most changes
        what, data = _inner(data, rng)
    else:
        what, data = mutated_bytes(data, rng)
    path.write_bytes(data)
    return Case(f"{name}: {what}", lambda: _read(path, box, rng.random()))


def _inner(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Change data.pkl of torch's zip file."""
    out, said = io.BytesIO(), ""
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl"):
                said, content = mutated_bytes(content, rng)
            new.writestr(member.filename, content)
    return f"data.pkl: {said}", out.getvalue()


class _Payload:
    """An object whose unpickling calls a function that leaves a folder beside the output folder."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _hostile_pickle(originals: Path, rng: Random, box: Sandbox) -> Case:
    target = str(box.place / "code-was-run")
    payload = rng.choice(
        (
            _Payload(os.mkdir, target),
            _Payload(os.system, f"mkdir {target}"),
            _Payload(exec, f"import os; os.mkdir({target!r})"),
            _Payload(eval, f"__import__('os').mkdir({target!r})"),
            _Payload(shutil.copytree, str(originals / "results"), target),
        )
    )
    value: Any = rng.choice((payload, {"state_dict": payload}, {"state_dict": {"x": torch.zeros(2)}, "args": payload}, [payload]))
    suffix, path = rng.choice((".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".th", ".tar")), box.inside / "weights"
    path = path.with_suffix(suffix)
    if way := rng.choice(("torch", "old torch", "pickle")) == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=rng.choice((0, 2, 4))))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=way == "torch")
    return Case(f"code in a {suffix} ({way})", lambda: _read(path, box, rng.random()))


def _folder(originals: Path, rng: Random, box: Sandbox) -> Case:
    """A diffusers folder with a changed config.json or changed weights."""
    source, path = originals / "weights/diffusers", box.inside / "vae"
    path.mkdir()
    names = [item.name for item in source.iterdir()]
    chosen = rng.choice(("config.json", "config.json", *names))
    for name in names:
        data, what = _bytes(source / name), ""
        if name == chosen:
            if name == "config.json" and rng.random() < 0.8:
                said, value = mutated_value(json.loads(data), rng)
                data = json.dumps(value).encode()
            else:
                said, data = mutated_bytes(data, rng)
            what = f"{name}: {said}"
            tried = what
        (path / name).write_bytes(data)
    return Case(tried, lambda: _read(path, box, rng.random()))


def _read(path: Path, box: Sandbox, draw: float) -> None:
    describe(str(path))
    tokenizer: Any = None
    if draw < 0.1:
        export(str(path), to="diffusers", out=box.out / "exported", symmetric=True, console=Console(file=io.StringIO()))
    elif draw < 0.2:
        read_transformer(path)
    elif draw < 0.3:
        load_state(path, "weights of a campaign")
    elif draw < 0.5:
        read_diffusion(path)
    else:
        tokenizer = open_tokenizer(path)
    if tokenizer is not None:
        with torch.no_grad():
            tokenizer.decode(tokenizer.encode(torch.zeros(1, 3, 32, 32)).mode())
