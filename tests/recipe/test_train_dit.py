import tomllib

import pytest

from smtool.commands.inspect.diffusion import recipe_rows
from smtool.errors import RecipeError
from smtool.networks.shapes_only import shapes_only
from smtool.recipe import TrainDiT, load, packaged, run_name
from smtool.recipe.catalog import names, opening
from smtool.tokenizers import open_tokenizer

TRANSFORMERS = [path for path in sorted(packaged().rglob("*.toml")) if "latents" in tomllib.loads(path.read_text())]
MINIMAL = """
steps = 10
[latents]
autoencoder = "runs/dsm"
[data]
batch = 8
[model]
kind = "sit"
[optimizer]
"""


def _file(name: str) -> str:
    return f"{name}.toml"


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return str(path)


def test_recipes_were_found():
    found = {path.relative_to(packaged()).with_suffix("").as_posix() for path in TRANSFORMERS}
    assert {"sit", "uvit", "repa", "irepa", "repa-dog"} <= found
    assert {name for name in names() if name.endswith(".dit")} <= found


@pytest.mark.parametrize("path", TRANSFORMERS, ids=lambda path: str(path.relative_to(packaged())))
def test_every_recipe_loads_opens_with_its_command_and_has_no_idle_setting(path):
    loaded = load(str(path), TrainDiT)
    name = path.relative_to(packaged()).as_posix()
    assert path.read_text().splitlines()[0].startswith(f"# smtool train-dit recipes/{name}")
    assert list(loaded.tables.remarks()) == []
    assert len(opening(name.removesuffix(".toml"))) > 20
    assert TrainDiT.model_validate(tomllib.loads(loaded.resolved_toml())) == loaded.tables


@pytest.mark.parametrize("path", TRANSFORMERS, ids=lambda path: str(path.relative_to(packaged())))
def test_a_recipes_autoencoder_is_the_run_of_another_recipe_or_a_folder_that_its_comments_explain(path):
    text = path.read_text()
    autoencoder = tomllib.loads(text)["latents"]["autoencoder"]
    if autoencoder.startswith("runs/"):
        made = {f"runs/{name}" for name in names()} | {f"runs/{run_name(packaged() / name)}" for name in map(_file, names())}
        assert autoencoder in made
    else:
        given = autoencoder.startswith(("specimen:", "dct:")) or autoencoder == "pixels"
        assert given or "diffusers" in text or autoencoder.endswith(".pt")


@pytest.mark.parametrize("path", [p for p in TRANSFORMERS if "paper" not in p.parts], ids=lambda path: path.stem)
def test_small_recipes_train_a_nano_model_and_state_what_a_teacher_downloads(path):
    tables = load(str(path), TrainDiT).tables
    assert tables.model.size in ("nano", "custom")
    if tables.alignment is not None:
        assert (tables.alignment.kind, tables.alignment.teacher) == (path.stem.removesuffix("-e"), "dinov2-s")
        assert "88 MB" in path.read_text()
        assert load(str(path), TrainDiT, ["alignment.teacher=squeezenet"]).tables.alignment.teacher == "squeezenet"


DCTDIFF = [path for path in TRANSFORMERS if "dctdiff" in path.parts]
PUBLISHED = {      # parameters, snr_scale, FID (arXiv 2412.15032, released code and its README)
    "cifar10-m4": (129_987_096, 2, "5.54"),
    "celeba64-s4": (44_267_544, 4, "1.85"),
    "imagenet64-s4": (44_780_056, 4, "9.93"),
    "ffhq128-s8": (44_298_294, 3, "6.46"),
    "ffhq256-m8": (130_761_264, 1, "5.62"),
    "cifar10-pixels": (130_024_068, 1, ""),
    "celeba64-pixels": (44_292_228, 1, ""),
    "ffhq128-pixels": (44_439_828, 1, ""),
    "ffhq256-pixels": (130_982_676, 1, ""),
}


def test_all_published_rows_of_dctdiff_have_a_recipe():
    stems = {path.stem.removesuffix(".dit") for path in DCTDIFF}
    assert stems - PUBLISHED.keys() == {f"{name.split('-')[0]}-sit" for name in PUBLISHED}
    assert stems >= PUBLISHED.keys()


@pytest.mark.parametrize("path", DCTDIFF, ids=lambda path: path.stem)
def test_recipes_of_dctdiff_hold_the_released_settings(path):
    tables, name, text = load(str(path), TrainDiT).tables, path.stem.removesuffix(".dit"), path.read_text()
    imagenet, pixels = name.startswith("imagenet"), name.endswith("pixels")
    assert (tables.data.batch, tables.optimizer.lr) == ((1024, 3e-4) if imagenet else (256, 2e-4))
    own = name == "cifar10-pixels"
    assert (tables.optimizer.betas, tables.optimizer.warmup) == (((0.99, 0.999), 2500) if own else ((0.99, 0.99), 5000))
    assert (tables.optimizer.weight_decay, tables.optimizer.warmup_from, tables.optimizer.clip) == (0.03, "zero", "off")
    assert (tables.precision, tables.data.flip, tables.ema.decay, tables.latents.stats) == ("fp16", True, 0.9999, "published")
    assert (tables.sampler.kind, tables.sampler.steps, tables.process.prediction) == ("dpm-solver-fast", 50, "eps")
    assert (tables.latents.autoencoder == "pixels", tables.loss.weights) == (pixels, "uniform" if pixels else "entropy")
    assert "Measured: not run." in text and ("jpeg:75 --out" if pixels else "jpeg:95 --rounding truncate") in text
    if name in PUBLISHED:
        parameters, scale, fid = PUBLISHED[name]
        assert (recipe_rows(load(str(path), TrainDiT))["parameters"].startswith(f"{parameters:,}") or imagenet) and fid in text
        assert tables.process.snr_scale == scale
        with shapes_only():
            shape = open_tokenizer(tables.latents.autoencoder).latent_shape(*tables.data.image_size)
            network = tables.model.build(shape, 1000 if imagenet else 0)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_lightning_dit_has_the_released_settings():
    """Source: released-code.md#lightningdit."""
    recipe = load("paper/related/lightning-dit-xl.dit", TrainDiT)
    tables, text = recipe.tables, recipe.path.read_text()
    assert (tables.steps, tables.data.batch, tables.precision, tables.labels.dropout) == (80_000, 1024, "bf16", 0.1)
    assert (tables.optimizer.lr, tables.optimizer.betas, tables.optimizer.weight_decay) == (2e-4, (0.9, 0.95), 0)
    assert (tables.process.time, tables.loss.cosine, tables.ema.decay, tables.data.flip) == ("logit-normal", 1, 0.9999, True)
    assert (tables.sampler.steps, tables.sampler.cfg_scale, tables.sampler.cfg_channels) == (249, 10, 3)
    with shapes_only():
        network = tables.model.build((32, 16, 16), 1000)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"{count:,}" in text and "5.14" in text and "2.11" in text and "# Measured: not run." in text


def test_dit_dh_has_the_released_settings():
    """Source: released-code.md#dit-dh."""
    recipe = load("paper/related/dit-dh-xl.dit", TrainDiT)
    tables, text, optimizer = recipe.tables, recipe.path.read_text(), recipe.tables.optimizer
    epoch = 1_281_167 // 1024
    assert (tables.steps, tables.data.batch, tables.ema.decay, tables.latents.stats) == (80 * epoch, 1024, 0.9995, "element")
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay, optimizer.clip) == (2e-4, (0.9, 0.95), 0, 1)
    rates = [optimizer.rate(number * epoch, 1400 * epoch) for number in (0, 40, 420, 800, 1000)]
    assert rates == pytest.approx([2e-4, 2e-4, 1.1e-4, 2e-5, 2e-5])
    process = tables.process.build((768, 16, 16))
    times = tables.sampler.times(process)
    assert (tables.process.time, len(times)) == ("logit-normal", 50)
    assert (process.shift, float(times[-1])) == (pytest.approx(6.928, abs=5e-4), pytest.approx(0.0069, abs=5e-5))
    for size, published in (("XL", 838_675_796), ("S", 196_455_764)):
        sized = load("paper/related/dit-dh-xl.dit", TrainDiT, [f"model.size={size}"]).tables
        with shapes_only():
            network = sized.model.build((768, 16, 16), 1000)
        assert sum(parameter.numel() for parameter in network.parameters()) == published and f"{published:,}" in text
    assert "2.16" in text and "# Measured: not run." in text and "--guide runs/dit-dh-s --cfg-scale 1.42" in text


def test_a_warm_up_as_long_as_the_run_is_remarked_on(recipe):
    steps = load(recipe, TrainDiT).tables.steps
    assert f"warmup.steps = {steps} is all of" in next(load(recipe, TrainDiT, [f"warmup.steps={steps}"]).tables.remarks())
    shorter = load(recipe, TrainDiT, [f"warmup.steps={steps - 1}"]).tables
    assert not [remark for remark in shorter.remarks() if remark.startswith("warmup.steps")]


@pytest.mark.parametrize(
    ("name", "gamma", "scale", "published"), [("ddpm-ip", 0.15, 1, "gamma 0.15"), ("adm-es", 0, 1.017, "FID 2.17")]
)
def test_rows_of_exposure_bias_hold_the_published_settings(name, gamma, scale, published):
    """Source: released-code.md#exposure-bias."""
    path = packaged() / f"paper/related/{name}-cifar10.dit.toml"
    tables = load(str(path), TrainDiT).tables
    found = (tables.process.input_perturbation, tables.sampler.epsilon_scale, tables.sampler.steps)
    assert found == (gamma, scale, 100)
    baseline = load(str(packaged() / "paper/dctdiff/cifar10-pixels.dit.toml"), TrainDiT).tables
    for table in ("data", "latents", "model", "optimizer", "ema", "steps", "precision"):
        assert getattr(tables, table) == getattr(baseline, table)
    assert published in path.read_text() and "# Measured: not run." in path.read_text()


@pytest.mark.parametrize(("name", "published"), [("sd-vae", ("4.07", "1.67")), ("va-vae", ("4.05", "1.73"))])
def test_repa_e_has_the_released_settings(name, published):
    """Source: released-code.md#repa-e."""
    recipe = load(f"paper/related/repa-e-{name}.dit", TrainDiT)
    tables, text, joint = recipe.tables, recipe.path.read_text(), recipe.tables.end_to_end
    assert (tables.steps, tables.data.batch, tables.data.flip, tables.precision) == (400_000, 256, False, "fp16")
    assert (tables.model.size, tables.model.patch) == ("XL", 2 if name == "sd-vae" else 1)
    assert (tables.alignment.weight, tables.alignment.depth, joint.alignment_weight) == (0.5, 8, 1.5)
    assert (joint.momentum, joint.eps, joint.optimizer, joint.discriminator.optimizer) == (0.1, 1e-4, None, None)
    assert (tables.optimizer.lr, tables.optimizer.weight_decay, tables.optimizer.warmup, tables.optimizer.clip) == (1e-4, 0, 0, 1)
    assert (joint.reconstruction.loss, joint.perceptual.weight, joint.regularizers.kl.weight) == ("l1", 1, 1e-6)
    rules = joint.discriminator.table
    assert (rules.weight, rules.adaptive, rules.entry, rules.updates, rules.num_layers) == (0.1, False, 0, "simultaneous", 3)
    assert (tables.ema.decay, tables.ema.warmup) == (0.9999, False)
    assert (tables.sampler.kind, tables.sampler.steps) == ("euler-maruyama", 250)
    assert all(number in text for number in published) and "# Measured: not run." in text


PAPERS = [path for path in TRANSFORMERS if "paper" in path.parts and path not in DCTDIFF and "related" not in path.parts]


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_paper_recipes_hold_the_released_settings(path):
    """No mirrored latents, cached in float32; U-ViT's warm-up begins at rate 0.

    Sources: released-code.md#latent-normalization, released-code.md#u-vit, released-code.md#sit.
    """
    tables = load(str(path), TrainDiT).tables
    assert (tables.data.flip, tables.latents.dtype, tables.data.batch, tables.precision) == (False, "fp32", 256, "fp16")
    if tables.model.kind == "uvit":
        assert (tables.optimizer.warmup, tables.optimizer.warmup_from, tables.latents.stats) == (5000, "zero", "scalar")
        assert "VP-SDE" in path.read_text()
    else:
        assert tables.optimizer.warmup == 0
    assert "Measured: not run." in path.read_text()


def test_defaults_of_absent_tables(recipe):
    """Defaults of a minimal recipe: flow with velocity target, no labels, no alignment, no warm-up, embedded autoencoder."""
    tables = load(recipe, TrainDiT).tables
    assert (tables.process.kind, tables.process.prediction, tables.labels, tables.alignment) == ("flow", "v", None, None)
    assert (tables.warmup, tables.latents.embed, tables.latents.online, tables.latents.stats) == (None, True, False, "channel")
    assert (tables.data.train, tables.data.image_size) == ("", "autoencoder")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["alignment.kind=repa", "alignment.teacher=dinov2-s", "alignment.depth=13"], "alignment.depth: must be at most the mod"),
        (["sampler.cfg_scale=2.0"], "sampler.cfg_scale: guidance needs classes: add a [labels] table, or use cfg_scale = 1"),
        (["sampler.kind=euler-maruyama", "process.kind=ddpm"], 'sampler.kind: euler-maruyama needs process.kind = "flow"'),
        (["sampler.steps=1001", "process.kind=ddpm"], "sampler.steps: must be at most 1000"),
        (["sampler.cfg_interval=[0.7, 0.2]"], "sampler.cfg_interval: must be two times"),
        (["sampler.cfg_channels=-1"], "sampler.cfg_channels: must be at least 0"),
        (["sampler.epsilon_scale=0"], "sampler.epsilon_scale: must be greater than 0"),
        (["sampler.epsilon_scale=1.01", "sampler.steps=1"], "sampler.epsilon_scale: must be 1 for a flow with steps = 1, but"),
        (["process.kind=ddpm", "process.input_perturbation=-1"], "process.input_perturbation: must be at least 0"),
        (["loss.cosine=-1"], "loss.cosine: must be at least 0"),
        (["sampler.cfg_scale=0.5"], "sampler.cfg_scale: must be at least 1"),
        (["accumulate=3"], "accumulate: 3 micro-batches do not divide data.batch = 8"),
        (["alignment.kind=repa-dog", "alignment.teacher=squeezenet"], "alignment.sigma1: is required, but mis"),
        (["alignment.kind=repa"], "alignment.teacher: is required, but missing."),
        (["alignment.kind=repa", "alignment.teacher=a", "alignment.kernel=3"], "alignment.kernel: no such key. Known"),
        (["alignment.kind=rpa"], "alignment.kind: must be 'repa', 'irepa' or 'repa-dog', but is 'rpa'."),
        (["model.kind="], "model.kind: is required, but missing."),
        (["model.kind=dit"], "model.kind: must be 'sit', 'uvit', 'lightning-dit' or 'dit-dh', but is 'dit'."),
        (["model.pach=4"], "model.pach: no such key. Did you mean `patch`?"),
        (["model.kind=uvit", "model.size=XL"], "model.size: must be 'nano'"),
        (["model.size=custom", "model.depth=2", "model.width=32", "model.heads=3"], "model.heads: must divide width = 32"),
        (["latents.autoencoder="], "latents.autoencoder: is required, but missing."),
        (["latents.stats=spectral"], 'latents.flatten: is required with stats = "spectral": a delta, such as 1.0, or "white"'),
        (["latents.flatten=1"], 'latents.flatten: is for stats = "spectral", but stats is "channel"'),
        (["latents.stats=spectral", "latents.flatten=5"], "latents.flatten: must be at most 4"),
        (["latents.stats=spectral", "latents.flatten=grey"], " number or must be 'white', but is 'grey'"),
        (["latents.onlin=true"], "latents.onlin: no such key. Did you mean `online`?"),
        (["labels.dropout=1"], "labels.dropout: must be less than 1"),
        (["warmup.cutoff=0.2"], "warmup.steps: is required, but missing."),
        (["warmup.cutoff=0.75", "warmup.steps=2"], "warmup.cutoff: must be below 0.7071, the corners, for an ideal"),
        (["data.image_size=big"], "data.image_size"),
    ],
)
def test_each_mistake_has_a_clear_message(recipe, overrides, words):
    with pytest.raises(RecipeError) as caught:
        load(recipe, TrainDiT, overrides)
    assert words in str(caught.value)
    assert "validation error" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["labels={}", "sampler.cfg_scale=2.0"],
        ["latents.stats=spectral", "latents.flatten=1"],
        ["latents.stats=spectral", "latents.flatten=white"],
        ["sampler.kind=ddim", "process.kind=ddpm"],
        ["alignment.kind=repa", "alignment.teacher=dinov2-s", "alignment.depth=12"],
    ],
)
def test_the_proposed_values_work(recipe, overrides):
    load(recipe, TrainDiT, overrides)


def test_an_infinite_sigma_comes_back_from_a_resolved_recipe(recipe):
    keys = ["alignment.kind=repa-dog", "alignment.teacher=squeezenet", "alignment.sigma1=0", "alignment.sigma2=inf"]
    loaded = load(recipe, TrainDiT, keys)
    assert TrainDiT.model_validate(tomllib.loads(loaded.resolved_toml())) == loaded.tables


def test_a_grid_larger_than_the_samples_gives_a_remark(recipe):
    assert "8 samples are shown" in next(load(recipe, TrainDiT, ["validation.num_images=8"]).tables.remarks())


def test_an_autoencoders_recipe_is_refused():
    with pytest.raises(RecipeError, match="latents: is required"):
        load("dsm", TrainDiT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["labels.dropout=0.1"], "labels.dropout: must be 0 with model.null_class = false, but is 0.1"),
        (["labels.dropout=0", "sampler.cfg_scale=2"], "sampler.cfg_scale: must be 1 for a network without a null class"),
        (["process.kind=vp-sde", "sampler.kind=euler-maruyama"], 'needs process.kind = "flow"; "ddim" works with "vp-sde"'),
        (["sampler.kind=dpm-solver-fast"], 'dpm-solver-fast needs process.kind = "vp-sde"; "ddim" works with "flow"'),
        (["process.kind=flow", "process.snr_scale=4"], "a flow has `shift`: 1 / sqrt(c)"),
        (["process.kind=vp-sde", "process.prediction=v"], "process.prediction: must be 'eps' or 'x0', but is 'v'"),
    ],
)
def test_combinations_that_no_network_or_process_has_are_named(recipe, changes, words):
    with pytest.raises(RecipeError) as caught:
        load(recipe, TrainDiT, ["model.kind=uvit", "model.null_class=false", *changes])
    assert words in str(caught.value)
