import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from smtool import cli
from smtool.errors import RecipeError
from smtool.networks.shapes_only import shapes_only
from smtool.recipe import TrainAE, find, load, packaged, run_name
from smtool.recipe.catalog import copy, names, opening

ALL = sorted(packaged().rglob("*.toml"))
AUTOENCODERS = [path for path in ALL if not {"latents", "racers"} & tomllib.loads(path.read_text()).keys()]
PAPER = [path for path in AUTOENCODERS if "paper" in path.parts]
RELATED = {      # recipe -> parameters of its network
    "va-vae-f16d32": 69_836_067, "ssvae-f16d48": 106_793_523, "nextstep-1-f8d16": 83_819_683, "l-detok-f16d16": 64_352_723,
    "uae-f16d32": 64_577_827, "epsilon-vae-f8d4": 134_168_679,
    "dc-ae-f32c32": 323_356_460, "dc-ae-f64c128": 676_896_140, "dc-ae-f128c512": 1_120_682_252,
    "dc-ae-1.5-f32c128": 523_609_740, "dc-ae-1.5-f64c128": 714_741_644,
    "sdxl-f8d4": 83_653_863, "rae-dinov2-b": 415_056_640, "rae-siglip2-b": 415_056_640, "rae-mae-b": 415_056_640,
}
MINIMAL = """
steps = 10
[data]
image_size = 64
batch = 8
[model]
[optimizer]
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return path


def test_images_may_be_rectangles_of_other_channels(recipe):
    changed = load(str(recipe), TrainAE, ["data.image_size=[64, 96]", "model.image_channels=1"])
    assert changed.tables.shapes.images == (8, 1, 64, 96)
    assert changed.tables.shapes.latents == (8, 4, 8, 12)
    assert "image_size = [\n    64,\n    96,\n]" in changed.resolved_toml()
    assert tomllib.loads(changed.resolved_toml())["data"]["image_size"] == [64, 96]
    assert "image_size = 64" in load(str(recipe), TrainAE, ["data.image_size=[64, 64]"]).resolved_toml()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.image_size=[64, 100]", "data.image_size: an image of 64x100 cannot be encoded: both sides must be multiples of"),
        ("data.image_size=[64, 96, 3]", "data.image_size: must be one whole number or [height, width], but is [64, 96, 3]."),
        ("data.image_size=0", "data.image_size: must be at least 1 pixel a side, but is 0."),
        ("model.image_channels=5", "model.image_channels: must be at most 4, but is 5."),
    ],
)
def test_impossible_shapes_are_problems_of_the_recipe(change, words, recipe):
    with pytest.raises(RecipeError) as caught:
        load(str(recipe), TrainAE, [change])
    assert words in str(caught.value)


def test_recipes_were_found():
    assert len(AUTOENCODERS) >= 20
    assert {"dsm", "esm", "sd-vae", "scale-equivariance", "eq-vae", "paper/table2/f16d16-dsm.ae"} <= set(names())


@pytest.mark.parametrize("path", AUTOENCODERS, ids=lambda path: str(path.relative_to(packaged())))
def test_every_autoencoder_recipe_loads_opens_with_its_command_and_has_no_idle_setting(path):
    loaded = load(str(path), TrainAE)
    name = path.relative_to(packaged()).as_posix()
    assert path.read_text().splitlines()[0].startswith(f"# smtool train-ae recipes/{name}")
    assert list(loaded.tables.remarks()) == []
    assert len(opening(name.removesuffix(".toml"))) > 20
    assert TrainAE.model_validate(tomllib.loads(loaded.resolved_toml())) == loaded.tables


@pytest.mark.parametrize("path", [p for p in PAPER if "related" not in p.parts], ids=lambda path: path.stem)
def test_paper_recipes_hold_the_released_settings(path):
    """Source: released-code.md#autoencoder-training."""
    tables = load(str(path), TrainAE).tables
    celeba = "celeba" in tables.data.train
    assert (tables.steps, tables.data.batch) == ((500_000, 48) if celeba else (600_000, 128))
    assert (tables.optimizer.lr, tables.optimizer.betas, tables.optimizer.weight_decay) == (5e-5, (0.9, 0.999), 0.005)
    assert (tables.optimizer.warmup, tables.optimizer.clip, tables.precision, tables.ema) == (2000, 1.0, "bf16", None)
    assert (tables.perceptual.net, tables.perceptual.weight) == ("vgg", 0.5)
    assert (tables.discriminator.weight, tables.discriminator.start, tables.discriminator.init_std) == (0.5, 50_001, 0.2)
    assert tables.discriminator.updates == "alternating"
    assert tables.model.downsample_pad == "symmetric"
    assert tables.optimizer.warmup_from == "zero"
    assert len(tables.regularizers.present) == 1
    if tables.regularizers.dsm:      # one cutoff for each GPU's images: 4 x 12, 8 x 16
        assert tables.regularizers.dsm.per == (12 if celeba else 16)
    assert "Measured: not run." in path.read_text()


def test_recipes_of_related_systems_were_found():
    found = {path.name.removesuffix(".ae.toml") for path in PAPER if "related" in path.parts}
    assert found >= set(RELATED)


@pytest.mark.parametrize("name", RELATED)
def test_a_recipe_of_a_related_system_states_what_is_published_and_its_parameters(name):
    path = packaged() / f"paper/related/{name}.ae.toml"
    with shapes_only():
        network = load(str(path), TrainAE).tables.model.build()
    count = sum(parameter.numel() for parameter in network.parameters())
    text = path.read_text()
    assert count == RELATED[name] and f"{count:,}" in text
    assert all(f"\n# {word}: " in text for word in ("Published", "Parameters", "Ours")) and "# Measured: not run." in text


def test_vavae_has_the_released_settings():
    """Source: released-code.md#va-vae. The projection has 32 * 1024 weights."""
    tables = load("paper/related/va-vae-f16d32.ae", TrainAE).tables
    table = tables.regularizers.va_vae
    assert (table.teacher, table.preprocessing) == ("dinov2-l", "released")
    assert (table.weight, table.cosine_margin, table.distance_margin) == (0.1, 0.5, 0.25)
    assert (tables.optimizer.lr, tables.optimizer.betas, tables.data.batch, tables.precision) == (1e-4, (0.5, 0.9), 256, "fp32")
    assert (tables.discriminator.start, tables.discriminator.weight, tables.regularizers.kl.weight) == (5001, 0.5, 1e-6)


@pytest.mark.parametrize("path", [p for p in AUTOENCODERS if "paper" not in p.parts], ids=lambda path: path.stem)
def test_small_recipes_need_no_download(path):
    tables = load(str(path), TrainAE).tables
    assert tables.perceptual is None
    assert tables.data.train.startswith("builtin:")


def test_a_bare_name_and_the_written_path_find_the_same_file_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("dsm") == find("recipes/dsm.toml") == packaged() / "dsm.toml"
    assert find("paper/table2/f8d4-esm.ae") == packaged() / "paper/table2/f8d4-esm.ae.toml"


def test_a_local_file_is_preferred_to_a_packaged_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dsm").write_text(MINIMAL)
    assert find("dsm") == Path("dsm")


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(RecipeError, match="Did you mean `esm`"):
        find("recipes/ems.toml")


def test_overrides_set_add_and_remove(recipe):
    overrides = ["optimizer.lr=3e-4", "data.train=my/folder", "regularizers.dsm.rows_removed=[0, 8]"]
    tables = load(str(recipe), TrainAE, overrides).tables
    assert (tables.optimizer.lr, tables.data.train, tables.regularizers.dsm.rows_removed) == (3e-4, "my/folder", (0, 8))
    assert load("dsm", TrainAE, ["regularizers.dsm=", "ema="]).tables.regularizers.present == {}
    assert load(str(recipe), TrainAE, ["regularizers.kl={}"]).tables.regularizers.kl.weight == 1e-6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=-1", "optimizer.lr: must be greater than 0.0, but is -1."),
        ("regularizers.dsm.rows_removd=[0]", "regularizers.dsm.rows_removd: no such key. Did you mean `rows_removed`?"),
        ("stpes=3", "stpes: no such key. Did you mean `steps`?"),
        ("regularizers.esn={}", "regularizers.esn: no such key. Did you mean `esm`?"),
        ("steps=", "steps: is required, but missing."),
        ("model.channels=[32, 48]", "model.channels"),
        ("model.downsample=4", "no published widths for downsample = 4"),
        ("precision=bf8", "precision: must be 'fp32', 'bf16' or 'fp16', but is 'bf8'."),
        ("data.image_size=60", "data.image_size: an image of 60x60 cannot be encoded"),
        ("regularizers.dsm.block=16", "regularizers.dsm.block: the latent is 8x8, which blocks of 16"),
        ("accumulate=3", "accumulate: 3 micro-batches do not divide data.batch = 8"),
        ("optimizer=5", "optimizer: must be a table, but is 5."),
        ("steps.x=5", "`steps` is a value, not a table"),
        ("steps", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("a b=3", "expected KEY=VALUE"),
        ("regularizers.dms=", "the recipe has no `regularizers.dms` to remove"),
        ("nothing.there=", "the recipe has no `nothing.there` to remove"),
    ],
)
def test_each_mistake_has_a_clear_message(recipe, override, words):
    with pytest.raises(RecipeError) as caught:
        load(str(recipe), TrainAE, [override])
    assert words in str(caught.value)


def test_all_problems_are_reported_together(recipe):
    with pytest.raises(RecipeError) as caught:
        load(str(recipe), TrainAE, ["optimizer.lr=-1", "stpes=3", "data.batch=x"])
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("mine.toml: 3 problems")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["data.image_size=16", "model.downsample=1", "model.channels=[32]", "discriminator={}"],
            "the smallest pair is 16 px, but a 3-layer PatchGAN needs 24; use num_layers = 2, or images of at least 24 px",
        ),
        (
            ["discriminator={}", "regularizers.scale_equivariance={}"],
            "the smallest pair is 16 px, but a 3-layer PatchGAN needs 24; use num_layers = 2, or scales of at least 0.375",
        ),
        (["data.image_size=32", "regularizers.dsm={}"], 'latent is 4x4, which blocks of 8 do not fill; use block = "fit", or'),
        (["regularizers.dsm={}", "regularizers.eq_vae={}"], "regularizers.eq_vae.prior: must be 0 with dsm"),
        (["model.kind=vae"], "model.kind: must be 'sd-vae', 'taesd', 'dc-ae', 'rae' or 'epsilon-vae', but is 'vae'."),
        (["model.kind=sd-vae", "model.dwnsample=4"], "model.dwnsample: no such key. Did you mean `downsample`?"),
        (["model.sd-vae=1"], "model.sd-vae: no such key. Known here: init, kind, downsample"),
        (["model=1"], "model: must be a table, but is 1."),
        (["data.image_size=16", "perceptual.net=alex"], "LPIPS with alex needs"),
    ],
)
def test_the_message_about_an_impossible_size_names_one_that_fits(recipe, overrides, words):
    with pytest.raises(RecipeError) as caught:
        load(str(recipe), TrainAE, overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["discriminator.num_layers=2", "regularizers.scale_equivariance={}"],
        ["data.image_size=32", "regularizers.dsm.block=fit"],
        ["regularizers.dsm={}", "regularizers.eq_vae.prior=0"],
    ],
)
def test_the_proposed_values_work(recipe, overrides):
    load(str(recipe), TrainAE, overrides)


def test_settings_without_effect_give_a_remark(recipe):
    tables = load(str(recipe), TrainAE, ["discriminator.start=10"]).tables
    assert "discriminator is never used" in next(tables.remarks())


def test_a_warm_up_longer_than_the_run_gives_a_remark(recipe):
    (found,) = load(str(recipe), TrainAE).tables.remarks()
    assert found == "optimizer.warmup = 2000 is more than steps = 10: the rate stays below optimizer.lr."
    assert not list(load(str(recipe), TrainAE, ["optimizer.warmup=10"]).tables.remarks())


def test_text_that_is_not_toml_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(RecipeError, match=r"bad\.toml: not valid TOML"):
        load(str(tmp_path / "bad.toml"), TrainAE)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(RecipeError, match="cannot be read as text"):
        load(str(tmp_path / "binary.toml"), TrainAE)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("recipes/paper/table2/x.ae.toml", "paper-table2-x.ae"),
        ("recipes/dsm.toml", "dsm"),
        ("my/own.toml", "own"),
        ("a/_recipes/b/c.toml", "b-c"),
    ],
)
def test_runs_are_named_after_their_recipe(path, name):
    assert run_name(Path(path)) == name


def test_copy_never_overwrites(tmp_path):
    copy("dsm", tmp_path / "new.toml")
    assert (tmp_path / "new.toml").read_text() == (packaged() / "dsm.toml").read_text()
    with pytest.raises(RecipeError, match="exists already"):
        copy("esm", tmp_path / "new.toml")


@pytest.mark.slow
def test_recipe_commands_work_as_a_user_types_them(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "smtool", "recipes", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert "paper/table2/f16d16-dsm.ae" in run("list").stdout
    assert run("show", "dsm").stdout == (packaged() / "dsm.toml").read_text()
    assert "smtool train-ae mine.toml" in run("copy", "dsm", "mine.toml").stdout
    assert "smtool train-dit theirs.toml" in run("copy", "sit", "theirs.toml").stdout
    assert (tmp_path / "mine.toml").exists()
    again = run("copy", "dsm", "mine.toml")
    assert (again.returncode, again.stderr.count("\n")) == (2, 2)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("steps=18446744073709551616", "steps"),
        ("model.latent_channels=1000000000", "model.latent_channels"),
        ("model.blocks_per_level=1000", "model.blocks_per_level"),
        ("model.channels=[4, 8, 16, 1000000]", "model.channels"),
        ("discriminator.num_layers=1000000", "discriminator.num_layers"),
        (f"data.train=[{'1, ' * 3000}]", "data.train"),
    ],
)
def test_sizes_beyond_any_network_and_long_values_are_refused_in_a_short_message(change, key):
    with pytest.raises(RecipeError, match=key) as found:
        load("sd-vae", TrainAE, [change])
    assert len(str(found.value)) < 1000


def test_a_name_longer_than_the_system_takes_is_no_recipe():
    for name in ("x" * 300, "x/" * 3000):
        with pytest.raises((RecipeError, OSError)) as found:
            load(name, TrainAE)
        assert cli._report(found.value) in (2, 3)
