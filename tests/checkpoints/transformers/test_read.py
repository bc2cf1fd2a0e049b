"""Published transformers: files of random weights with the published keys, compared with restated forward passes.

Sources of the keys: released-code.md#u-vit, released-code.md#sizes-of-sit.
"""

import argparse
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from smtool.checkpoints.transformers import read_transformer
from smtool.diffusion import Flow, Sampler, sample
from smtool.errors import CheckpointError
from smtool.networks.sit import SiT

State = dict[str, Tensor]


def _linear(name: str, inner: int, outer: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outer, inner)} | ({f"{name}.bias": (outer,)} if bias else {})


def sit_shapes(*, depth=2, width=32, channels=4, side=8, patch=2, classes=5, doubled=False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of SiT's and REPA's tensors (released-code.md#sizes-of-sit, released-code.md#sit)."""
    shapes = {
        "pos_embed": (1, (side // patch) ** 2, width),
        "x_embedder.proj.weight": (width, channels, patch, patch),
        "x_embedder.proj.bias": (width,),
        "y_embedder.embedding_table.weight": (classes + 1, width),
        **_linear("t_embedder.mlp.0", 256, width),
        **_linear("t_embedder.mlp.2", width, width),
    }
    for block in range(depth):
        for name, inner, outer in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, 4 * width),
            ("mlp.fc2", 4 * width, width),
            ("adaLN_modulation.1", width, 6 * width),
        ):
            shapes |= _linear(f"blocks.{block}.{name}", inner, outer)
    out = patch**2 * channels * (2 if doubled else 1)
    return shapes | _linear("final_layer.linear", width, out) | _linear("final_layer.adaLN_modulation.1", width, 2 * width)


def uvit_shapes(*, depth=4, width=32, channels=4, side=8, patch=2, classes=0, conv=True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of U-ViT's tensors (released-code.md#u-vit)."""
    shapes = {
        "pos_embed": (1, (side // patch) ** 2 + (2 if classes else 1), width),
        "patch_embed.proj.weight": (width, channels, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        **_linear("decoder_pred", width, patch**2 * channels),
        **({"label_emb.weight": (classes + 1, width)} if classes else {}),
        **({"final_layer.weight": (channels, channels, 3, 3), "final_layer.bias": (channels,)} if conv else {}),
    }
    places = [f"{half}_blocks.{number}" for half in ("in", "out") for number in range(depth // 2)]
    for place in (*places, "mid_block"):
        shapes |= {f"{place}.norm{n}.{what}": (width,) for n in (1, 2) for what in ("weight", "bias")}
        shapes |= _linear(f"{place}.attn.qkv", width, 3 * width, bias=False) | _linear(f"{place}.attn.proj", width, width)
        shapes |= _linear(f"{place}.mlp.fc1", width, 4 * width) | _linear(f"{place}.mlp.fc2", 4 * width, width)
        if place.startswith("out"):
            shapes |= _linear(f"{place}.skip_linear", 2 * width, width)
    return shapes


def randomized(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    draws = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=draws) for name, shape in shapes.items()}


def _map(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].double().T + state.get(f"{name}.bias", torch.zeros(1)).double()


def _attended(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    """Softmax attention over all pairs of tokens, one head at a time."""
    query, key, value = _map(state, f"{name}.qkv", x).chunk(3, -1)
    size = x.shape[-1] // heads
    parts = []
    for head in range(heads):
        q, k, v = (part[..., head * size : (head + 1) * size] for part in (query, key, value))
        parts.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size), -1) @ v)
    return _map(state, f"{name}.proj", torch.cat(parts, -1))


def _waves(t: Tensor, size: int) -> Tensor:
    angle = t.double()[:, None] * 10_000.0 ** (-torch.arange(size // 2, dtype=torch.float64) / (size // 2))
    return torch.cat([angle.cos(), angle.sin()], 1)


def _patches(state: State, name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
    return F.conv2d(x.double(), weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)


def _image(tokens: Tensor, patch: int, channels: int) -> Tensor:
    """Tokens -> image; values of a token are ordered (row, column, channel)."""
    side = math.isqrt(tokens.shape[1])
    image = tokens.new_zeros(len(tokens), channels, side * patch, side * patch)
    for number in range(side**2):
        row, column = number // side * patch, number % side * patch
        block = tokens[:, number].reshape(-1, patch, patch, channels).permute(0, 3, 1, 2)
        image[:, :, row : row + patch, column : column + patch] = block
    return image


def sit_forward(state: State, x: Tensor, t: Tensor, labels: Tensor, *, heads: int, patch: int, channels: int) -> Tensor:
    """The output of SiT's code, in its own time and with all channels, in float64 (released-code.md#sit)."""
    norm = lambda h: F.layer_norm(h, h.shape[-1:], eps=1e-6)  # noqa: E731
    h = _patches(state, "x_embedder.proj", x) + state["pos_embed"].double()
    c = _map(state, "t_embedder.mlp.2", F.silu(_map(state, "t_embedder.mlp.0", _waves(t, 256))))
    c = (c + state["y_embedder.embedding_table.weight"].double()[labels])[:, None]
    for block in range(len({name.split(".")[1] for name in state if name.startswith("blocks.")})):
        name = f"blocks.{block}"
        a = _map(state, f"{name}.adaLN_modulation.1", F.silu(c)).chunk(6, -1)
        h = h + a[2] * _attended(state, f"{name}.attn", norm(h) * (1 + a[1]) + a[0], heads)
        inner = F.gelu(_map(state, f"{name}.mlp.fc1", norm(h) * (1 + a[4]) + a[3]), approximate="tanh")
        h = h + a[5] * _map(state, f"{name}.mlp.fc2", inner)
    shift, scale = _map(state, "final_layer.adaLN_modulation.1", F.silu(c)).chunk(2, -1)
    return _image(_map(state, "final_layer.linear", norm(h) * (1 + scale) + shift), patch, channels)


def uvit_forward(state: State, x: Tensor, t: Tensor, labels: Tensor | None, *, heads: int, patch: int) -> Tensor:
    """The output of U-ViT's code, in float64 (released-code.md#u-vit)."""
    norm = lambda name, h: F.layer_norm(  # noqa: E731
        h, h.shape[-1:], state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), eps=1e-5
    )
    patches = _patches(state, "patch_embed.proj", x)
    tokens = [_waves(t, patches.shape[-1])[:, None], patches]
    if labels is not None:
        tokens.insert(0, state["label_emb.weight"].double()[labels][:, None])
    h = torch.cat(tokens, 1) + state["pos_embed"].double()

    def block(name: str, h: Tensor) -> Tensor:
        h = h + _attended(state, f"{name}.attn", norm(f"{name}.norm1", h), heads)
        return h + _map(state, f"{name}.mlp.fc2", F.gelu(_map(state, f"{name}.mlp.fc1", norm(f"{name}.norm2", h))))

    half, kept = len({name.split(".")[1] for name in state if name.startswith("in_blocks.")}), []
    for number in range(half):
        h = block(f"in_blocks.{number}", h)
        kept.append(h)
    h = block("mid_block", h)
    for number in range(half):
        name = f"out_blocks.{number}"
        h = block(name, _map(state, f"{name}.skip_linear", torch.cat([h, kept.pop()], -1)))
    h = _map(state, "decoder_pred", norm("norm", h)[:, len(tokens[:-1]) :])
    image = _image(h, patch, x.shape[1])
    if "final_layer.weight" not in state:
        return image
    return F.conv2d(image, state["final_layer.weight"].double(), state["final_layer.bias"].double(), padding=1)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, 8, 8, generator=draws), torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0, 4, 5])


def test_sit_is_converted_to_smtools_direction_of_time(tmp_path, inputs):
    """The result is SiT's velocity at its time 1 - t, negated, with the first half of its channels."""
    state = randomized(sit_shapes(doubled=True))
    torch.save(state, tmp_path / "SiT.pt")
    published = read_transformer(tmp_path / "SiT.pt", heads=2)
    assert (published.family, published.process, published.averaged) == ("SiT", "flow", None)
    assert (published.latent_shape, published.num_classes) == ((4, 8, 8), 5)
    x, t, labels = inputs
    theirs = sit_forward(state, x, 1 - t, labels, heads=2, patch=2, channels=8)[:, :4]
    ours = published.build()(x, t, labels).output
    assert_close(ours.double(), -theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max())


def test_euler_steps_in_sits_own_time_give_the_result_of_our_sampler(tmp_path, inputs):
    state = randomized(sit_shapes(doubled=True))
    torch.save(state, tmp_path / "SiT.pt")
    noise, _, labels = inputs
    theirs = noise.double()
    for step in range(4):      # from noise at 0 to data at 1
        t = torch.full((3,), step / 4)
        theirs = theirs + sit_forward(state, theirs.float(), t, labels, heads=2, patch=2, channels=8)[:, :4] / 4
    network, process = read_transformer(tmp_path / "SiT.pt", heads=2).build(), Flow().build()
    sampler = Sampler(kind="euler", steps=4)
    model = sampler.model(process, network, labels=labels, null=5)
    ours = sample(process, model, noise, sampler, step_noise=lambda step: noise)
    assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max())


@pytest.mark.parametrize("key", ["ema", "model"])
def test_repa_is_read_unchanged_without_its_projectors(tmp_path, inputs, key):
    state = randomized(sit_shapes() | _linear("projectors.0.0", 32, 64) | _linear("projectors.0.2", 64, 16))
    args = argparse.Namespace(model="SiT-tiny/2", enc_type="dinov2-vit-b")
    torch.save({key: state, "opt": {"state": {}}, "args": args, "steps": 7}, tmp_path / "0000007.pt")
    published = read_transformer(tmp_path / "0000007.pt", heads=2)
    assert (published.family, published.averaged) == ("REPA", key == "ema")
    x, t, labels = inputs
    theirs = sit_forward(state, x, t, labels, heads=2, patch=2, channels=4)
    assert_close(published.build()(x, t, labels).output.double(), theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max())


def test_the_average_is_taken_where_there_are_both(tmp_path):
    last, average = (randomized(sit_shapes(), seed) for seed in (0, 1))
    torch.save({"model": last, "ema": average}, tmp_path / "both.pt")
    found = read_transformer(tmp_path / "both.pt", heads=2).tensors["blocks.1.mlp.fc1.weight"]
    assert torch.equal(found, average["blocks.1.mlp.fc1.weight"])


def test_repas_first_files_with_decoder_blocks_and_a_wrapper_are_read(tmp_path, inputs):
    state = randomized(sit_shapes(depth=4))
    moved = {n.replace("blocks.2.", "decoder_blocks.0.").replace("blocks.3.", "decoder_blocks.1."): v for n, v in state.items()}
    torch.save({"ema": {f"module._orig_mod.{name}": value for name, value in moved.items()}}, tmp_path / "last.pt")
    published = read_transformer(tmp_path / "last.pt", heads=2)
    assert published.config.depth == 4
    assert all(torch.equal(published.tensors[name], value) for name, value in state.items())


@pytest.mark.parametrize(("classes", "conv"), [(0, True), (3, False)])
def test_uvit_is_read_unchanged(tmp_path, inputs, classes, conv):
    state = randomized(uvit_shapes(classes=classes, conv=conv))
    save_file(state, tmp_path / "nnet_ema.safetensors")
    published = read_transformer(tmp_path / "nnet_ema.safetensors", heads=2)
    assert (published.family, published.process, published.num_classes) == ("U-ViT", "ddpm", classes)
    assert (published.config.depth, published.config.final_conv) == (4, conv)
    x, labels = inputs[0], torch.tensor([0, 2, 3]) if classes else None
    levels = torch.tensor([1.0, 500.0, 1000.0])
    theirs = uvit_forward(state, x, levels, labels, heads=2, patch=2)
    assert_close(published.build()(x, levels, labels).output.double(), theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max())


@pytest.mark.parametrize(
    ("shapes", "description", "heads"),
    [
        (sit_shapes(depth=12, width=384, side=32, classes=1000, doubled=True), "SiT-S/2 for latents of 4x32x32, 1000 classes", 6),
        (sit_shapes(depth=12, width=384, side=16, channels=16, patch=1), "REPA-S/1 for latents of 16x16x16, 5 classes", 6),
        (uvit_shapes(depth=12, width=512, side=64, patch=4, conv=False), "U-ViT-S/4 for latents of 4x64x64, unconditional", 8),
        (uvit_shapes(depth=16, width=512, side=32), "U-ViT-S-deep/2 for latents of 4x32x32, unconditional", 8),
    ],
)
def test_published_sizes_are_recognized_by_depth_and_width(tmp_path, shapes, description, heads):
    zero = torch.zeros(1)
    path = tmp_path / "weights.pt"      # all tensors are views of one zero
    torch.save({name: zero.expand(shape) for name, shape in shapes.items()}, path)
    published = read_transformer(path)
    assert (published.description, published.config.heads) == (description, heads)


def test_smtools_own_sit_weights_are_read_as_repas(tmp_path):
    network = SiT(size="nano", patch=1).build((2, 4, 4), 3)
    torch.save(network.half().state_dict(), tmp_path / "nano.pt")
    published = read_transformer(tmp_path / "nano.pt")
    assert (published.family, published.config, published.num_classes) == ("REPA", SiT(size="nano", patch=1), 3)
    assert {value.dtype for value in published.tensors.values()} == {torch.float32}


def _strange(state: State) -> State:
    return {**state, "blocks.0.attn.q_norm.weight": torch.ones(16)}


def _cut(state: State) -> State:
    return {name: value for name, value in state.items() if name != "blocks.1.mlp.fc2.bias"}


@pytest.mark.parametrize(
    ("content", "heads", "words"),
    [
        (randomized(sit_shapes()), None, "2 blocks of width 32 are not a published size of SiT"),
        (randomized(sit_shapes()), 3, "is incomplete or of an unknown form: .*must divide width"),
        (_strange(randomized(sit_shapes())), 2, "has blocks.0.attn.q_norm.weight"),
        (_cut(randomized(sit_shapes())), 2, "lacks blocks.1.mlp.fc2.bias"),
        ({**randomized(sit_shapes()), "pos_embed": torch.zeros(1, 15, 32)}, 2, "15 positions are not those of a square latent"),
        ({"conv1.weight": torch.ones(1)}, None, "holds conv1: not a known transformer"),
        ([torch.ones(1)], None, "not a known transformer"),
        ({"ema": {"x": print}}, None, "is a pickle that would run code"),
    ],
)
def test_other_files_are_refused_with_what_was_found(tmp_path, content, heads, words):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=words):
        read_transformer(tmp_path / "file.pt", heads=heads)


def test_a_truncated_and_a_missing_file_are_named(tmp_path):
    torch.save(randomized(sit_shapes()), tmp_path / "file.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "file.pt").read_bytes()[:2000])
    for name, words in (("cut.pt", "not a readable file"), ("none.pt", "no such file")):
        with pytest.raises(CheckpointError, match=words):
            read_transformer(tmp_path / name)


def dctdiff_file(path, *, depth=4, width=32, channels=24, side=4, classes=0) -> State:
    """A file with DCTdiff's names: U-ViT's without a final convolution, with a linear first layer and no null class."""
    state = randomized(uvit_shapes(depth=depth, width=width, channels=channels, side=side, patch=1, classes=classes, conv=False))
    if classes:
        state["label_emb.weight"] = state["label_emb.weight"][:-1]
    state["proj.weight"] = state.pop("patch_embed.proj.weight").flatten(1)
    state["proj.bias"] = state.pop("patch_embed.proj.bias")
    torch.save(state, path)
    return state


@pytest.mark.parametrize("classes", [0, 3])
def test_dctdiff_is_read_with_its_linear_first_layer_as_a_patch_of_one_cell(tmp_path, classes):
    """Its tokens are the latent's cells in rows, each with all channels."""
    state = dctdiff_file(tmp_path / "nnet_ema.pth", classes=classes)
    published = read_transformer(tmp_path / "nnet_ema.pth", heads=2)
    assert (published.family, published.process, published.latent_shape) == ("DCTdiff", "vp-sde", (24, 4, 4))
    assert (published.num_classes, published.config.final_conv, published.config.patch) == (classes, False, 1)
    x = torch.randn(3, 24, 4, 4, generator=torch.Generator().manual_seed(1))
    labels, times = torch.tensor([0, 2, 1]) if classes else None, torch.tensor([0.0, 450.5, 999.0])
    theirs = uvit_forward(_with_convolution(state), x, times, labels, heads=2, patch=1)
    assert_close(published.build()(x, times, labels).output.double(), theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max())


def _with_convolution(state: State) -> State:
    linear = {"patch_embed.proj.weight": state["proj.weight"][..., None, None], "patch_embed.proj.bias": state["proj.bias"]}
    return {name: value for name, value in state.items() if not name.startswith("proj.")} | linear


def test_a_uvit_with_1000_class_embeddings_has_no_null_class(tmp_path):
    for rows, classes in ((1000, 1000), (1001, 1000)):
        torch.save(randomized(uvit_shapes(channels=3, side=8, patch=4, classes=rows - 1)), tmp_path / "nnet.pth")
        published = read_transformer(tmp_path / "nnet.pth", heads=2)
        assert (published.num_classes, published.config.null_class) == (classes, rows == 1001)


def test_a_damaged_dctdiff_is_refused(tmp_path):
    state = dctdiff_file(tmp_path / "nnet.pth")
    del state["proj.bias"]
    torch.save(state, tmp_path / "nnet.pth")
    with pytest.raises(CheckpointError, match=r"looks like DCTdiff, but is incomplete or of an unknown form: 'proj.bias'"):
        read_transformer(tmp_path / "nnet.pth", heads=2)
