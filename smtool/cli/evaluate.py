"""`smtool eval`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import COMPILE, PRECISION, SAMPLERS, Device, JsonFile, PrecisionName, Tile, WeightsDir, computing_device
from smtool.errors import RecipeError

_both = partial(typer.Option, rich_help_panel="Scores of reconstructions and of samples")
_reconstructions = partial(typer.Option, rich_help_panel="Scores of reconstructions only")
_samples = partial(typer.Option, rich_help_panel="Scores of samples only")
_compared = partial(typer.Option, rich_help_panel="Images and protocol")
_drawn = partial(typer.Option, rich_help_panel="Sampling from a transformer (default: the settings in its checkpoint)")

_EXTRACTORS = (
    "Frechet distance on the features of this network: inception, dinov2, squeezenet, resnet56, random (needs no weights), "
    "timm:MODEL, or a TorchScript FILE.pt. May be repeated."
)
_PROTOCOLS = (
    "How images are processed before they are scored. clean: as in clean-fid (antialiased bicubic resize); paper: as in the "
    "Spectrum Matching release (JPEG 75, bilinear resize, sampled posterior); adm: as ADM's evaluator (TensorFlow 1's bilinear "
    "resize). Scores of different protocols are not comparable."
)


@app.command("eval")
def evaluate(
    what: Annotated[
        str | None, typer.Argument(help="Run, checkpoint, autoencoder, or images in files. Default: the newest run.")
    ] = None,
    fid: Annotated[
        bool, _both("--fid", help="FID of samples, rFID of reconstructions: Frechet distance on Inception features.")
    ] = False,
    fd_dinov2: Annotated[bool, _both("--fd-dinov2", help="Frechet distance on DINOv2 ViT-L/14 features.")] = False,
    features: Annotated[list[str], _both(metavar="NAME", help=_EXTRACTORS)] = (),  # type: ignore[assignment]
    psnr: Annotated[bool, _reconstructions("--psnr", help="Peak signal-to-noise ratio, in dB.")] = False,
    ssim: Annotated[bool, _reconstructions("--ssim", help="Structural similarity.")] = False,
    lpips: Annotated[bool, _reconstructions("--lpips", help="LPIPS, on the network of --lpips-net.")] = False,
    lpips_net: Annotated[
        Literal["alex", "vgg", "squeeze"] | None, _reconstructions(help="Network behind --lpips. Default: alex.")
    ] = None,
    kid: Annotated[bool, _samples("--kid", help="Kernel distance, on every network chosen above; default: Inception.")] = False,
    mind: Annotated[bool, _samples("--mind", help="MIND, a sliced Wasserstein distance, on the same networks as --kid.")] = False,
    pr: Annotated[bool, _samples("--pr", help="Precision, recall, density, coverage, on the same networks as --kid.")] = False,
    sfid: Annotated[bool, _samples("--sfid", help="sFID: Frechet distance on Inception's 17 x 17 spatial features.")] = False,
    inception_score: Annotated[bool, _samples("--is", help="Inception score.")] = False,
    infinity: Annotated[
        bool,
        _samples("--infinity", help="Also extrapolate each Frechet distance to infinitely many samples (33 more distances)."),
    ] = False,
    data: Annotated[str | None, _compared(help="Images to reconstruct. Default: the validation images of the run.")] = None,
    reference: Annotated[
        str | None,
        _compared(help="Images, or .npz, to compare with. Default: the input images; for samples, the training images."),
    ] = None,
    num_images: Annotated[int | None, _compared(min=2, help="Number of images. Default: all, at most 50,000.")] = None,
    protocol: Annotated[Literal["clean", "paper", "adm"], _compared(help=_PROTOCOLS)] = "clean",
    sampler: Annotated[str | None, _drawn(help=f"{SAMPLERS}.")] = None,
    steps: Annotated[int | None, _drawn(min=1, help="Number of sampler steps.")] = None,
    cfg_scale: Annotated[float | None, _drawn(help="Scale of guidance, by the null class or --guide; 1 means none.")] = None,
    cfg_interval: Annotated[
        tuple[float, float] | None, _drawn(help="Guide only at times t in this interval; t is 0 for data, 1 for noise.")
    ] = None,
    cfg_channels: Annotated[int | None, _drawn(min=0, help="Guide the first so many latent channels only; 0: all.")] = None,
    epsilon_scale: Annotated[
        float | None, _drawn(help="Divide predicted noise by this; a little above 1 corrects exposure bias. 1: off.")
    ] = None,
    precision: Annotated[PrecisionName | None, _drawn(help=PRECISION)] = None,
    compiled: Annotated[bool, _drawn("--compile", help=COMPILE)] = False,
    guide: Annotated[
        str | None,
        _drawn(metavar="CKPT", help="A weaker transformer of the same latents that guides in place of the null class."),
    ] = None,
    image_format: Annotated[
        Literal["png", "jpeg:75", "jpeg:95"],
        _drawn("--format", help="Code samples as JPEG of a quality before they are scored; png changes nothing."),
    ] = "png",
    labels: Annotated[str, _drawn(help="Classes: balanced, random, or numbers such as 0,3,7.")] = "balanced",
    batch: Annotated[int, typer.Option(min=1, help="Images per forward pass; does not change the scores.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples, of sampled posteriors and of the bootstrap intervals.")] = 0,
    tile: Tile = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    json_path: JsonFile = None,
    table_path: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Also write the table to this file: .md, or .csv with all digits."),
    ] = None,
    save_reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write mean and covariance of the reference's features (.npz).")
    ] = None,
) -> None:
    """Score an autoencoder's reconstructions, a transformer's samples, or generated images in files.

    By default, compute only scores that need no downloaded weights.

    Examples:

    smtool eval runs/dsm --psnr --ssim --features random

    smtool eval runs/dsm --fid --json scores.json --table scores.md

    smtool eval runs/sit --fid --protocol adm --reference VIRTUAL_imagenet256_labeled.npz
    """
    from smtool.commands.evaluate.evaluation import evaluate
    from smtool.evaluation.options import EvalOptions
    from smtool.report.console import Console

    if lpips_net is not None and not lpips:
        raise RecipeError("--lpips-net has no effect without --lpips.", hint="Add --lpips.")
    scores = {"fid": fid, "sfid": sfid, "is": inception_score, "kid": kid, "mind": mind, "pr": pr, "psnr": psnr, "ssim": ssim}
    scores[f"lpips_{lpips_net or 'alex'}"] = lpips
    if image_format != "png" and protocol == "paper":
        raise RecipeError(f"--protocol paper codes samples as JPEG, so --format {image_format} would code them twice.",
                          hint="Leave one of them out.")
    guidance = {"cfg_scale": cfg_scale, "cfg_interval": cfg_interval, "cfg_channels": cfg_channels}
    changes = {"kind": sampler, "steps": steps, "epsilon_scale": epsilon_scale, "precision": precision, **guidance}
    options = EvalOptions(
        scores={name for name, on in scores.items() if on},
        features=[*features, *(["dinov2"] if fd_dinov2 else [])],
        infinity=infinity,
        reference=reference,
        save_reference=save_reference,
        data=data,
        num_images=num_images,
        protocol=protocol,
        labels=labels,
        changes={key: value for key, value in changes.items() if value is not None},
        guide=guide,
        seed=seed,
        batch=batch,
        device=computing_device(device),
        weights_dir=weights_dir,
        json_path=json_path,
        table_path=table_path,
        tile=tile,
        compiled=compiled,
        jpeg=None if image_format == "png" else int(image_format.removeprefix("jpeg:")),
    )
    evaluate(what, options, console=Console())
