"""`smtool eval`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import SAMPLERS, Device, JsonFile, WeightsDir, computing_device
from smtool.errors import RecipeError

_both = partial(typer.Option, rich_help_panel="Scores of both")
_reconstructions = partial(typer.Option, rich_help_panel="Scores of reconstructions")
_samples = partial(typer.Option, rich_help_panel="Scores of samples")
_compared = partial(typer.Option, rich_help_panel="What is compared")
_drawn = partial(typer.Option, rich_help_panel="How samples are drawn; default: as the checkpoint says")

_EXTRACTORS = "Frechet distance on random, squeezenet, resnet56, timm:MODEL, FILE.pt; may be repeated."
_PROTOCOLS = (
    "clean: as clean-fid, antialiased; paper: as Spectrum Matching, JPEG 75, bilinear, sampled posterior; adm: as ADM's "
    "evaluator. Numbers of two protocols do not compare."
)


@app.command("eval")
def evaluate(
    what: Annotated[str | None, typer.Argument(help="Checkpoint, tokenizer, or images in files; default: newest run.")] = None,
    fid: Annotated[bool, _both("--fid", help="FID, or rFID of reconstructions: Frechet distance on Inception.")] = False,
    fd_dinov2: Annotated[bool, _both("--fd-dinov2", help="Frechet distance on DINOv2 ViT-L/14.")] = False,
    features: Annotated[list[str], _both(metavar="NAME", help=_EXTRACTORS)] = (),  # type: ignore[assignment]
    psnr: Annotated[bool, _reconstructions("--psnr", help="Peak signal-to-noise ratio, dB.")] = False,
    ssim: Annotated[bool, _reconstructions("--ssim", help="Structural similarity.")] = False,
    lpips: Annotated[bool, _reconstructions("--lpips", help="LPIPS; needs its trunk's weights.")] = False,
    lpips_net: Annotated[
        Literal["alex", "vgg", "squeeze"] | None, _reconstructions(help="Trunk of --lpips; default alex.")
    ] = None,
    kid: Annotated[bool, _samples("--kid", help="Kernel distance, on every extractor asked, else Inception.")] = False,
    pr: Annotated[bool, _samples("--pr", help="Precision, recall, density, coverage, on the same.")] = False,
    sfid: Annotated[bool, _samples("--sfid", help="sFID: on Inception's 17 x 17 map, not pooled.")] = False,
    inception_score: Annotated[bool, _samples("--is", help="Inception score.")] = False,
    infinity: Annotated[bool, _samples("--infinity", help="Each Frechet distance at N → ∞ too (33 more to compute).")] = False,
    data: Annotated[str | None, _compared(help="Images to reconstruct; default: the run's validation split.")] = None,
    reference: Annotated[
        str | None, _compared(help="Images or .npz to compare with; default: the inputs, the training images.")
    ] = None,
    num_images: Annotated[int | None, _compared(min=2, help="Default: the smaller of 50,000 and what there is.")] = None,
    protocol: Annotated[Literal["clean", "paper", "adm"], _compared(help=_PROTOCOLS)] = "clean",
    sampler: Annotated[str | None, _drawn(help=f"{SAMPLERS}.")] = None,
    steps: Annotated[int | None, _drawn(min=1, help="Steps of the sampler.")] = None,
    cfg_scale: Annotated[float | None, _drawn(help="Classifier-free guidance; 1: none.")] = None,
    cfg_interval: Annotated[tuple[float, float] | None, _drawn(help="Times t that are guided, 0 data, 1 noise.")] = None,
    labels: Annotated[str, _drawn(help="Classes: balanced, random, or such as 0,3,7.")] = "balanced",
    batch: Annotated[int, typer.Option(min=1, help="Images per pass; does not change the scores.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of samples, sampled posteriors and intervals.")] = 0,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    json_path: JsonFile = None,
    table_path: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Write the table too: .md to paste, .csv with all digits.")
    ] = None,
    save_reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write mu and sigma of the reference's features (.npz).")
    ] = None,
) -> None:
    """Score an autoencoder's reconstructions, a transformer's samples, or images in files; one pass for all scores.

    With nothing asked: what needs no weights. rFID of an autoencoder: smtool eval runs/dsm --fid --psnr --ssim. FID of samples as
    in ADM's tables: smtool eval runs/sit --fid --protocol adm --reference VIRTUAL_imagenet256_labeled.npz
    """
    from smtool.commands.evaluate.evaluation import evaluate
    from smtool.evaluation.options import EvalOptions
    from smtool.report.console import Console

    if lpips_net is not None and not lpips:
        raise RecipeError("--lpips-net names the trunk of --lpips, which is not asked.", hint="Add --lpips.")
    scores = {"fid": fid, "sfid": sfid, "is": inception_score, "kid": kid, "pr": pr, "psnr": psnr, "ssim": ssim}
    scores[f"lpips_{lpips_net or 'alex'}"] = lpips
    changes = {"kind": sampler, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval}
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
        seed=seed,
        batch=batch,
        device=computing_device(device),
        weights_dir=weights_dir,
        json_path=json_path,
        table_path=table_path,
    )
    evaluate(what, options, console=Console())
