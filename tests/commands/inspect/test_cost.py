"""`inspect --cost` of packaged recipes, whose data, weights and autoencoders are not there."""

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smtool.commands.inspect.cost import recipe_cost, transformer_cost
from smtool.commands.inspect.cost_text import amount, rows
from smtool.commands.inspect.inspection import describe
from smtool.commands.train.cost_subject import autoencoder_subject
from smtool.cost.gpus import find_gpu
from smtool.cost.result import Cost
from smtool.errors import RecipeError
from smtool.recipe import TrainAE, TrainDiT, load


@pytest.fixture(scope="module")
def small() -> Cost:
    return recipe_cost("esm", gpu="a100")


def test_parameters_are_those_of_inspect(small):
    assert f"{small.parameters['autoencoder']:,} (" in describe("esm").rows["parameters"]
    assert f"{recipe_cost('sit', gpu='h100').parameters['transformer']:,}" == describe("sit").rows["parameters"]


def test_totals_follow_from_the_turns(small):
    seconds = sum(turn.number * turn.seconds for turn in small.turns)
    assert small.hours == pytest.approx(seconds / 3600)
    assert small.images_per_second == pytest.approx(small.steps * small.batch / seconds)
    assert small.floor_gpu_hours < small.gpu_hours
    assert all(turn.peak_share == pytest.approx(turn.flops / small.gpus / turn.seconds / 312e12) for turn in small.turns)
    held = small.memory.model_dump(exclude={"total", "available"})
    assert small.memory.total == pytest.approx(sum(held.values()))
    assert small.memory.optimizer == 2 * small.memory.gradients == 8 * small.parameters["autoencoder"]


def test_a_paper_recipe_is_counted_without_data_and_weights():
    """500,000 steps in turns are 275,000 updates of the autoencoder (released-code.md#discriminator)."""
    found = recipe_cost("paper/table2/f16d16-dsm.ae", gpu="h100", gpus=4)
    players = {player: sum(turn.number for turn in found.turns if turn.player == player) for player in found.parameters}
    assert players == {"autoencoder": 275_000, "discriminator": 225_000}
    assert found.samples == 12 and not found.sharded
    assert found.frozen_parameters == 14_714_688 + 1472      # VGG16's convolutions and the heads of LPIPS
    assert found.turns[0].sent_bytes == pytest.approx(2 * 3 / 4 * 4 * found.parameters["autoencoder"])
    assert not any(turn.flops_by_format.get("bf16", 0) == 0 for turn in found.turns)
    assert found.data.latent_bytes is not None and found.data.encode_gpu_hours > 0


def test_more_gpus_share_the_work_and_shard_a_large_transformer(tmp_path):
    small, large = (tmp_path / f"{name}.toml" for name in ("small", "large"))
    small.write_text(eager("paper/table4/sit-b2-repa.dit"))
    one, four = (recipe_cost(str(small), gpu="h200", gpus=n) for n in (1, 4))
    assert four.turns[0].flops == pytest.approx(one.turns[0].flops, rel=0.01)
    assert one.turns[0].sent_bytes == 0 < four.turns[0].sent_bytes
    assert four.memory.activations == pytest.approx(one.memory.activations / 4, rel=0.05)
    assert one.gpu_hours < four.gpu_hours and four.hours < one.hours
    large.write_text(eager("paper/related/lightning-dit-xl.dit") + "\n[parallel]\nshard_above = 300\n")
    found = recipe_cost(str(large), gpu="h200", gpus=8)
    assert found.sharded and found.memory.gathered > 0
    assert found.memory.optimizer == pytest.approx(found.parameters["transformer"], rel=0.01)      # 8 bytes on 8 GPUs


def test_no_frozen_network_of_a_step_computes_in_fp32():
    """RAE: encoder, LPIPS and the DINO of the discriminator, of which no weight has a gradient: its turn is forward but for the
    heads, so that it costs less than the autoencoder's."""
    found = recipe_cost("paper/related/rae-dinov2-b.ae", gpu="h100", gpus=8)
    assert all(turn.flops_by_format.get("fp32", 0) < 0.01 * turn.flops for turn in found.turns)
    autoencoder, discriminator = (
        max(turn.flops for turn in found.turns if turn.player == player) for player in ("autoencoder", "discriminator")
    )
    assert discriminator < 0.5 * autoencoder


def eager(name: str) -> str:
    """A recipe without its compilation, which takes long to count."""
    return load(name, TrainDiT).text.replace("compile = true\n", "")


def test_a_compiled_recipe_has_the_flops_of_the_plain_one_fewer_bytes_and_a_floor_below_75_ms(tmp_path):
    """The step of REPA in the paper's Table 4, with its teacher, on one H100."""
    plain = tmp_path / "plain.toml"
    plain.write_text(eager("paper/table4/sit-b2-repa.dit"))
    (before,), (after,) = (recipe_cost(name, gpu="h100").turns for name in (str(plain), "paper/table4/sit-b2-repa.dit"))
    assert after.flops == before.flops and after.bytes < 0.65 * before.bytes and after.kernels < before.kernels
    assert after.floor_seconds < 0.075 < before.floor_seconds and after.peak_share > 1.3 * before.peak_share


@pytest.mark.parametrize(("precision", "unit"), [("fp32", "tf32"), ("bf16", "bf16")])
def test_images_that_are_encoded_in_every_step_are_counted_as_pytorch_counts_them(precision, unit):
    changes = ["precision=bf16", "data.batch=16", f"latents.precision={precision}"]
    cached, online = (
        transformer_cost(load("sit", TrainDiT, [*changes, *more]).tables, "sit", find_gpu("h100"), 2)
        for more in ([], ["latents.online=true"])
    )
    trained = load("dsm", TrainAE).tables
    network = trained.model.build()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.encode(torch.zeros(16, 3, *trained.data.image_size))
    (before,), (after,) = cached.turns, online.turns
    assert after.flops - before.flops == counter.get_total_flops() > 0
    added = {name: flops - before.flops_by_format.get(name, 0) for name, flops in after.flops_by_format.items()}
    assert max(added, key=lambda name: added[name]) == unit      # attention of fp32 is not TF32
    assert after.seconds > before.seconds and online.data.latent_bytes is None
    assert online.frozen_parameters - cached.frozen_parameters == sum(p.numel() for p in network.parameters())
    assert any(f"encoded in every step, in {precision}" in said for said in online.assumptions)


def test_coefficients_are_encoded_without_a_network():
    changes = ["latents.autoencoder=pixels", "latents.online=true", "data.train=data/x", "data.image_size=32"]
    assert transformer_cost(load("sit", TrainDiT, changes).tables, "sit", find_gpu("h100"), 1).frozen_parameters == 0


def test_players_that_train_together_are_counted_together():
    """The autoencoder costs more than by itself: the alignment loss goes through the transformer, and back to the latents."""
    found = recipe_cost("repa-e", gpu="h100")
    autoencoder, transformer = found.turns
    assert [(turn.player, turn.number) for turn in found.turns] == [("autoencoder", 1000), ("transformer", 1000)]
    assert found.parameters["autoencoder"] == recipe_cost("sd-vae", gpu="h100").parameters["autoencoder"]
    assert autoencoder.flops > transformer.flops > 0
    assert found.frozen_parameters == pytest.approx(22e6, rel=0.03)      # DINOv2 ViT-S/14
    assert found.data.latent_bytes is None


def test_an_unknown_autoencoder_that_trains_too_is_taken_to_be_an_sd_vae(tmp_path):
    recipe = tmp_path / "joint.toml"
    text = load("repa-e", TrainDiT).text.replace('"runs/sd-vae"', '"weights/of-someone-f8d4"')
    recipe.write_text(text.replace("batch = 32", "batch = 1\nimage_size = 64\ntrain = 'data'"))
    found = recipe_cost(str(recipe), gpu="h100")
    assert found.parameters["autoencoder"] == 83_653_863      # SD-VAE f8d4
    assert found.assumptions[-1].startswith("weights/of-someone-f8d4 is not here")


def test_phases_follow_the_discriminator_and_the_sizes_of_images():
    changes = ["steps=1000", "data.sizes=[[0, 32], [600, 64]]", "discriminator.start=300", "discriminator.num_layers=1"]
    subject = autoencoder_subject(load("dsm", TrainAE, changes).tables, "dsm")
    found = [(turns.player[0], turns.phase, turns.number) for turns in subject.turns]
    assert found == [
        ("a", "32 px", 300),
        ("a", "with the discriminator at 32 px", 150), ("d", "with the discriminator at 32 px", 150),
        ("a", "with the discriminator at 64 px", 200), ("d", "with the discriminator at 64 px", 200),
    ]  # fmt: skip


def test_steps_of_random_sizes_are_averages_of_several():
    subject = autoencoder_subject(load("eq-vae", TrainAE).tables, "eq-vae")
    assert [len(turns.steps) for turns in subject.turns] == [4]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("esm", {"gpu": "tpu"}, "this GPU is not known"),
        ("esm", {"gpu": "h100", "gpus": 3}, "is not a multiple of 3 GPUs"),
        ("esm", {"gpu": "h100", "gpus": 0}, "must be at least 1"),
        ("race/faces", {"gpu": "h100"}, "is a recipe of race"),
        ("nothing", {"gpu": "h100"}, "no such recipe"),
    ],
)
def test_impossible_questions_are_one_sentence(name, options, message):
    with pytest.raises(RecipeError, match=message):
        recipe_cost(name, **options)


def test_an_autoencoder_of_unknown_shape_is_named(tmp_path):
    recipe = tmp_path / "of-nothing.toml"
    recipe.write_text('steps = 1\n[latents]\nautoencoder = "weights/unheard-of"\n[data]\nbatch = 1\nimage_size = 64\n'
                      '[model]\nkind = "sit"\n[optimizer]\nlr = 1.0\n')
    with pytest.raises(RecipeError, match="weights/unheard-of is not here"):
        recipe_cost(str(recipe), gpu="h100")


def test_the_table_shows_what_is_too_large(small):
    assert "does not fit" not in rows(small)["memory"]
    tight = small.model_copy(update={"memory": small.memory.model_copy(update={"available": 1e6})})
    assert rows(tight)["memory"].endswith("does not fit into 1.00 MB")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (5, "5.00 B"), (999.4, "999 B"), (999.6, "1.00 kB"), (12_345, "12.3 kB"), (3.2e18, "3.20 EB"), (4e25, "40000 ZB")],
)
def test_amounts_have_three_digits(value, text):
    assert amount(value, "B") == text


def test_the_command_prints_json_in_a_new_interpreter(command):
    asked = [sys.executable, "-m", "smtool", "inspect", "esm", "--cost", "--gpu", "4090", "--json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=300)
    found = Cost.model_validate(json.loads(done.stdout))
    assert (found.gpu, found.gpus, found.steps) == ("4090", 1, load("esm", TrainAE).tables.steps)
    code, _, said = command("inspect", "esm", "--gpus", "2")
    assert code == 2 and "--gpus has no effect without --cost" in said
