import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from smtool.commands.evaluate.evaluation import evaluate
from smtool.commands.evaluate.result import SampleEvaluation
from smtool.commands.sample.files import write_npz
from smtool.commands.sample.samples import sample_images
from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.diffusion import Flow, Sampler
from smtool.errors import DataError, RecipeError, WeightsError
from smtool.evaluation import feature_pass
from smtool.evaluation.options import EvalOptions
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.diffusion_model import DiffusionModel, read_diffusion, write_diffusion
from smtool.inference.generate import generate
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.networks.sit import SiT
from smtool.recipe import TrainDiT
from smtool.report.console import Console

SIDE, COUNT = 32, 30
SOURCE = f"builtin:photos?train={COUNT}&val=4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    open_images(SOURCE, "train", image_size=SIDE, root=folder / "data")
    return folder


@pytest.fixture
def checkpoint(folder, tmp_path, monkeypatch):
    """A transformer with random weights, 32 px -> 8 x 8 latents; its metadata states training on 30 crops."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "data", tmp_path / "data")
    return write(tmp_path / "runs/tiny/ckpt.safetensors")


def write(path, *, key=0, classes=0, **tables):
    recipe = {
        "steps": 1,
        "data": {"batch": 4},
        "latents": {"autoencoder": "runs/none"},
        "model": {"kind": "sit", "size": "custom", "depth": 1, "width": 16, "heads": 2, "patch": 4},
        "process": {"kind": "flow"},
        "optimizer": {"lr": 1e-3},
        "sampler": {"kind": "euler", "steps": 2},
        **tables,
    }
    config = SiT(size="custom", depth=1, width=16, heads=2, patch=4)
    with torch.random.fork_rng():
        torch.manual_seed(key)
        autoencoder = SDVAE(downsample=4, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build()
        network = config.build((4, 8, 8), classes)
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.3)
    images = open_images(SOURCE, "train", image_size=SIDE)
    summary = {
        "step": 7,
        "weights": "average",
        "data": SOURCE,
        "data_digest": images.digest,
        "image_size": SIDE,
        "autoencoder_path": "runs/none/ckpt.safetensors",
    }
    stats = LatentStats("scalar", torch.zeros(1), torch.ones(1), 1, "-")
    model = DiffusionModel(
        TrainDiT.model_validate(recipe), network, Flow().build(), stats, autoencoder, (4, 8, 8), classes, summary
    )
    write_diffusion(path, model, recipe=recipe)
    return path


def scored(what, **options):
    return evaluate(str(what), EvalOptions(**options), console=Console(quiet=True))


def values(result):
    return {name: score.value for name, score in result.scores.items()}


def drawn(checkpoint, count, rounding="nearest", **changes):
    """Samples as the checkpoint's own sampler gives them, (count, 3, 32, 32) uint8, in one batch, as `evaluate` draws so few.

    In other batches a convolution sums in another order, and a grey level may round the other way.
    """
    model = read_diffusion(checkpoint)
    sampler = Sampler(**{"kind": "euler", "steps": 2, **changes})
    options = {"seed": 0, "sampler": sampler, "labels": None, "batch": count, "rounding": rounding}
    return torch.cat([x for _, x in generate(model, range(count), **options)])


def real():
    return to_uint8(open_images(SOURCE, "train", image_size=SIDE).read(range(COUNT)).images)


def random_features(images):
    return load_extractor("random")(images).double()


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
def test_without_flags_the_newest_run_is_scored_against_its_training_images(checkpoint, tmp_path, frechet, screen):
    console, shown = screen
    result = evaluate(None, EvalOptions(json_path=tmp_path / "scores.json"), console=console)
    x, y = random_features(drawn(checkpoint, COUNT)), random_features(real())
    found = values(result)
    # 30 images are too few for 64 features: the kernel distance comes first
    assert list(found) == [
        "kid_random", "fd_random", "precision_random", "recall_random", "density_random", "coverage_random"
    ]  # fmt: skip
    assert found["fd_random"] == pytest.approx(frechet(x.numpy(), y.numpy()), rel=1e-3)
    options = {"kid_subsets": 1, "kid_subset_size": COUNT, "rng_seed": 0, "verbose": False}
    # the same float32 features, from the same batches; what differs is the order of sums in float64
    expected = kid_features_to_metric(x, y, **options)["kernel_inception_distance_mean"]
    assert found["kid_random"] == pytest.approx(expected, rel=1e-9)
    pr = prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=99, save_cpu_ram=False, verbose=False)
    assert found["precision_random"] == pytest.approx(pr["precision"], rel=1e-6)
    assert found["recall_random"] == pytest.approx(pr["recall"], rel=1e-6)
    assert SampleEvaluation.model_validate_json((tmp_path / "scores.json").read_text()) == result
    text = " ".join(shown().split())
    assert "unreliable, 30 images for 64 features" in text
    assert "Drawn by euler, 2 steps, no guidance, average weights of step 7, seed 0." in text
    assert not list(tmp_path.rglob("*.png"))


def test_the_passport_holds_everything_the_score_depends_on(checkpoint, frechet):
    result = scored(checkpoint, num_images=12, seed=3, changes={"kind": "heun", "steps": 3})
    passport = result.to_json()["scores"]["fd_random"]["passport"]
    del passport["sampling"]
    assert passport == {
        "metric": "frechet distance",
        "extractor": "random",
        "extractor_sha256": load_extractor("random").digest,
        "resize": "none",
        "codec": "none",
        "protocol": "clean",
        "num_images": 12,
        "images_sha256": result.samples.sha256,
        "num_reference": COUNT,
        "reference_sha256": open_images(SOURCE, "train", image_size=SIDE).digest,
        "seed": 3,
        "image_sizes": "32x32",
        "reference_sizes": "32x32",
        "channels": "RGB",
        "warning": "",
    }
    model = read_diffusion(checkpoint)
    sampling = result.scores["fd_random"].passport.sampling
    assert sampling == result.samples.drawn
    assert sampling.checkpoint == model.metadata["digest"]
    assert sampling.autoencoder == model.metadata["autoencoder"]["digest"]
    assert (sampling.step, sampling.weights, sampling.seed) == (7, "average", 3)
    assert (sampling.sampler.kind, sampling.sampler.steps, sampling.sampler.cfg_scale) == ("heun", 3, 1.0)


def test_features_are_reused_only_if_nothing_they_depend_on_changed(checkpoint, monkeypatch):
    passes = []
    once = feature_pass._pass

    def counted(source, *rest):
        passes.append(source.name.split()[0])
        return once(source, *rest)

    monkeypatch.setattr(feature_pass, "_pass", counted)
    first = scored(checkpoint)
    assert passes == ["training", "samples"]
    again = scored(checkpoint)
    assert (values(again), passes) == (values(first), ["training", "samples"])
    for options in ({"seed": 1}, {"changes": {"steps": 3}}):
        scored(checkpoint, **options)
    assert passes[2:] == ["samples", "samples"]
    write(checkpoint, key=1)
    assert values(scored(checkpoint)) != values(first)
    assert passes[4:] == ["samples"]
    scored(checkpoint, protocol="paper")      # another codec
    assert passes[5:] == ["training", "samples"]
    # the same weights under other statistics of latents are other samples
    model = read_diffusion(checkpoint)
    stats = LatentStats("scalar", torch.zeros(1), torch.full((1,), 2.0), 1, "-")
    write_diffusion(checkpoint, DiffusionModel(**{**vars(model), "stats": stats}), recipe=model.metadata["recipe"])
    scored(checkpoint)
    assert passes[7:] == ["samples"]


@pytest.mark.parametrize("kind", ["png", "shards", "npz"])
def test_samples_in_files_get_the_scores_of_samples_drawn_during_evaluation(checkpoint, kind):
    samples = sample_images(str(checkpoint), console=Console(quiet=True), num_images=COUNT, kind=kind, batch=8)
    assert (samples / "grid.png").is_file()
    result = scored(samples)
    assert values(result) == values(scored(checkpoint, batch=8))
    assert result.scores["fd_random"].passport.sampling.sampler.kind == "euler"
    assert result.samples.count == COUNT
    if kind == "png":
        (samples / "000003.png").unlink()
        with pytest.raises(DataError, match="holds 29 of 30 samples: sampling was interrupted"):
            scored(samples)


def test_references_may_be_folders_archives_and_npz(checkpoint, tmp_path):
    expected = values(scored(checkpoint))
    pixels = real().permute(0, 2, 3, 1).numpy()
    write_npz(tmp_path / "real.npz", pixels, None)
    (tmp_path / "real").mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"real/{number:03d}.png")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "real")
    for name in ("real", "real.npz", "packed.zip"):
        found = scored(checkpoint, reference=str(tmp_path / name))
        assert values(found) == pytest.approx(expected, rel=1e-9)
        assert found.reference.count == COUNT
    prepared = open_images(SOURCE, "train", image_size=SIDE)
    assert values(scored(checkpoint, reference=str(prepared.folder))) == expected
    # another picture under the same name: the stored features must not be used
    Image.fromarray(255 - pixels[0]).save(tmp_path / "real/000.png")
    assert values(scored(checkpoint, reference=str(tmp_path / "real"))) != expected


def test_images_that_cannot_be_compared_are_an_error(checkpoint, command, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        Image.new("RGB", (SIDE, SIDE), (number, 0, 0)).save(few / f"{number}.png")
    with pytest.raises(DataError, match="3 images are too few to compare distributions; at least 10 are needed") as caught:
        scored(checkpoint, reference=str(few))
    assert "65 for random, 2,049 for Inception" in str(caught.value)
    code, _, err = command("eval", str(checkpoint), "--reference", str(few))
    assert (code, "at least 10 are needed" in err) == (3, True)


def test_changed_training_images_are_not_accepted_as_reference(checkpoint):
    with pytest.raises(RecipeError, match="does not name images to compare with"):
        scored(open_images(SOURCE, "train", image_size=SIDE).folder)
    path = write(checkpoint)
    model = read_diffusion(path)
    summary = {**model.metadata, "data_digest": "0" * 64}
    write_diffusion(path, DiffusionModel(**{**vars(model), "metadata": summary}), recipe=model.metadata["recipe"])
    with pytest.raises(DataError, match="no longer holds the images") as caught:
        scored(path)
    assert "--reference" in str(caught.value)


def test_scores_by_the_teacher_have_a_note(checkpoint, tmp_path, screen):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet1_1_torchvision_fp16.pth")
    path = write(checkpoint, alignment={"kind": "repa", "teacher": "squeezenet", "depth": 1})
    console, shown = screen
    options = EvalOptions(features=["squeezenet", "random"], num_images=12, weights_dir=tmp_path)
    result = evaluate(str(path), options, console=console)
    warned = {name for name, score in result.scores.items() if any("teacher" in note for note in score.notes)}
    assert warned == {"fd_squeezenet", "kid_squeezenet"}
    assert "squeezenet was this transformer's teacher: rank by another network" in " ".join(shown().split())


def test_invalid_classes_and_options_are_errors(checkpoint, tmp_path):
    labelled = write(tmp_path / "classes/ckpt.safetensors", classes=3, labels={})
    result = scored(labelled, labels="0,2", num_images=10)
    assert result.samples.drawn.labels == "0,2"
    assert result.samples.sha256 != scored(labelled, num_images=10).samples.sha256
    with pytest.raises(RecipeError, match="3 is not one of this model's classes"):
        scored(labelled, labels="3")
    with pytest.raises(RecipeError, match="'psnr' is not a score of generated images"):
        scored(checkpoint, scores={"psnr"})
    with pytest.raises(RecipeError, match="--data is for reconstructions"):
        scored(checkpoint, data=SOURCE)
    write_npz(tmp_path / "drawn.npz", drawn(checkpoint, 12).permute(0, 2, 3, 1).numpy(), None)
    for ignored in ({"changes": {"steps": 3}}, {"changes": {"precision": "bf16"}}, {"compiled": True}):
        with pytest.raises(RecipeError, match="holds finished images"):
            scored(tmp_path / "drawn.npz", reference=SOURCE, **ignored)
    with pytest.raises(DataError, match=r"--num-images 13: .*drawn\.npz holds only 12 images"):
        scored(tmp_path / "drawn.npz", num_images=13, reference=SOURCE)


def test_samples_coded_as_jpeg_have_the_scores_of_the_files_and_their_passport(checkpoint, tmp_path, screen):
    kept = {}
    for quality in (None, 75, 95):
        kind = "png" if quality is None else f"jpeg:{quality}"
        files = sample_images(str(checkpoint), console=screen[0], out=tmp_path / f"drawn{quality}", num_images=12, kind=kind)
        of_files = scored(files, num_images=12, reference=SOURCE).scores["fd_random"]
        result = scored(checkpoint, num_images=12, reference=SOURCE, jpeg=quality)
        kept[quality] = result.scores["fd_random"]
        assert kept[quality].value == pytest.approx(of_files.value, rel=1e-6)
        assert of_files.passport.sampling.format == kind
        stated = kept[quality].passport.sampling.format
        assert stated == (None if quality is None else kind)
        assert any(f"coded as {kind} before they were scored" in said for said in result.sentences()) == (quality is not None)
    assert len({score.value for score in kept.values()}) == 3
    assert len({score.passport.images_sha256 for score in kept.values()}) == 3


def test_coding_is_refused_for_finished_images_and_for_a_protocol_that_codes_itself(checkpoint, tmp_path, command):
    write_npz(tmp_path / "drawn.npz", drawn(checkpoint, 12).permute(0, 2, 3, 1).numpy(), None)
    with pytest.raises(RecipeError, match="options of the sampler, --guide, --labels and --format have no effect"):
        scored(tmp_path / "drawn.npz", jpeg=75, reference=SOURCE)
    code, _, err = command("eval", str(checkpoint), "--format", "jpeg:75", "--protocol", "paper", "--features", "random")
    assert (code, "would code them twice" in err) == (2, True), err


def test_infinity_without_a_frechet_distance_is_an_error(checkpoint, inception):
    with pytest.raises(RecipeError, match="--infinity has no effect without a Frechet distance"):
        scored(checkpoint, scores={"is"}, infinity=True)


class Inception(nn.Module):
    """Stands for Inception as a state dict: three views of an image, of few numbers, since a root of 2,048 x 2,048 takes long."""

    views = ("pooled", "spatial", "logits")

    def look(self, images):
        pooled, spatial = (nn.functional.adaptive_avg_pool2d(images / 255, side).flatten(1) for side in (4, 3))
        return {"pooled": pooled, "spatial": spatial, "logits": 9 * pooled[:, :10]}


@pytest.fixture
def inception(monkeypatch):
    """The extractor that `load_extractor("inception")` returns here, marked as published."""
    summary = {"name": "inception", "digest": "0" * 64, "dim": 48, "size": 299, "resize": "bilinear-tf1"}
    extractor = Extractor(Inception(), **summary, is_published_inception=True)
    monkeypatch.setattr("smtool.evaluation.generation_judges.load_extractor", lambda name, **options: extractor)
    return extractor


def frechet_of_few(x, y):
    """With fewer vectors than dimensions, the trace of the root is that of a small matrix of inner products."""
    x, y = x.double().numpy(), y.double().numpy()
    a, b = (x - x.mean(0)) / (len(x) - 1) ** 0.5, (y - y.mean(0)) / (len(y) - 1) ** 0.5
    eigenvalues = np.linalg.eigvalsh((a @ b.T) @ (a @ b.T).T).clip(0)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * np.sqrt(eigenvalues).sum()


def test_inception_gives_its_scores_in_one_pass_and_takes_adms_reference_file(checkpoint, inception, tmp_path):
    options = {"scores": {"fid", "sfid", "is"}, "num_images": 12, "batch": 12}
    result = scored(checkpoint, protocol="adm", **options)
    assert list(result.scores) == ["kid", "fid", "sfid", "is", "is_whole"]
    x, y = (inception.look(images) for images in (drawn(checkpoint, 12, "truncate"), real()))      # as ADM's writer
    few = values(result)
    for name, view in (("fid", "pooled"), ("sfid", "spatial")):
        assert few[name] == pytest.approx(frechet_of_few(x[view], y[view]), rel=1e-3)
    # ADM's file: images, and the moments of both views
    moments = {}
    for view, names in (("pooled", ("mu", "sigma")), ("spatial", ("mu_s", "sigma_s"))):
        table = y[view].double().numpy()
        moments |= {names[0]: table.mean(0), names[1]: np.cov(table, rowvar=False)}
    np.savez(tmp_path / "adm.npz", arr_0=real().permute(0, 2, 3, 1).numpy(), **moments)
    from_file = scored(checkpoint, protocol="adm", reference=str(tmp_path / "adm.npz"), **options)
    assert values(from_file)["fid"] == pytest.approx(few["fid"], rel=1e-3)
    assert values(from_file)["sfid"] == pytest.approx(few["sfid"], rel=1e-3)
    assert from_file.scores["fid"].passport.num_reference is None
    np.savez(tmp_path / "moments.npz", **moments)
    options["scores"] = {"fid"}
    bare = scored(checkpoint, protocol="adm", reference=str(tmp_path / "moments.npz"), **options)
    assert values(bare)["fid"] == values(from_file)["fid"]
    with pytest.raises(DataError, match="holds only moments, and no images: published Inception features"):
        scored(checkpoint, protocol="clean", reference=str(tmp_path / "moments.npz"), **options)


def test_missing_inception_weights_are_an_error_before_anything_is_drawn(checkpoint, no_network, monkeypatch):
    monkeypatch.setattr("smtool.commands.evaluate.generations.read_diffusion", lambda *args: pytest.fail("opened the model"))
    for score in ("fid", "sfid", "is", "kid", "mind", "pr"):
        with pytest.raises(WeightsError, match=r"Inception v3 .* is needed"):
            scored(checkpoint, scores={score})


def test_an_npz_without_reference_data_is_an_error(checkpoint, tmp_path):
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((12, SIDE, SIDE, 3), np.float32))
    with pytest.raises(DataError, match=r"arr_0 is float32 \(12, 32, 32, 3\), but uint8"):
        scored(checkpoint, reference=str(tmp_path / "floats.npz"))
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    with pytest.raises(DataError, match=r"holds mean, but arr_0 \(images\) or mu and sigma"):
        scored(checkpoint, reference=str(tmp_path / "other.npz"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "floats.npz").read_bytes()[:500])
    with pytest.raises(DataError, match="not a readable npz file"):
        scored(checkpoint, reference=str(tmp_path / "cut.npz"))
