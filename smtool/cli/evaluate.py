"""`smtool eval`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, JsonFile, WeightsDir, computing_device


@app.command("eval")
def evaluate(
    what: Annotated[str | None, typer.Argument(help="Checkpoint, run, or images in files; default: the newest run.")] = None,
    fid: Annotated[bool, typer.Option("--fid", help="Frechet distance on Inception (or rFID); needs its weights.")] = False,
    sfid: Annotated[bool, typer.Option("--sfid", help="The same on a map of Inception that knows places.")] = False,
    inception_score: Annotated[bool, typer.Option("--is", help="Inception score.")] = False,
    fd_dinov2: Annotated[bool, typer.Option("--fd-dinov2", help="Frechet distance on DINOv2; needs its weights.")] = False,
    features: Annotated[list[str], typer.Option(help="Frechet distance on another extractor; may be repeated.")] = (),  # type: ignore[assignment]
    infinity: Annotated[bool, typer.Option("--infinity", help="Frechet distances at N → ∞ too (33 more of each).")] = False,
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance, on every extractor asked, else Inception.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="Precision, recall, density, coverage, on the same.")] = False,
    psnr: Annotated[bool, typer.Option("--psnr", help="Reconstructions: peak signal-to-noise ratio, dB.")] = False,
    ssim: Annotated[bool, typer.Option("--ssim", help="Reconstructions: structural similarity.")] = False,
    lpips: Annotated[bool, typer.Option("--lpips", help="Reconstructions: LPIPS; needs the trunk's weights.")] = False,
    lpips_net: Annotated[str, typer.Option(help="Trunk of --lpips: alex, vgg or squeeze.")] = "alex",
    reference: Annotated[str | None, typer.Option(help="Images to compare with; default: inputs, training images.")] = None,
    save_reference: Annotated[Path | None, typer.Option(help="Write mu and sigma of the reference's features (.npz).")] = None,
    data: Annotated[str | None, typer.Option(help="Images to reconstruct; default: the run's validation split.")] = None,
    num_images: Annotated[int | None, typer.Option(min=2, help="Default: the smaller of 50,000 and what there is.")] = None,
    protocol: Annotated[Literal["clean", "paper", "adm"], typer.Option(help="Fixes resize, codec, posterior.")] = "clean",
    sampler: Annotated[str | None, typer.Option(help="ddim, dpm-solver++, euler, heun, euler-maruyama.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance; 1: none.")] = None,
    cfg_interval: Annotated[tuple[float, float] | None, typer.Option(help="Times t that are guided, 0 data, 1 noise.")] = None,
    labels: Annotated[str, typer.Option(help="Classes of samples: balanced, random, or such as 0,3,7.")] = "balanced",
    batch: Annotated[int, typer.Option(min=1, help="Images per pass; does not change the scores.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples, posterior samples and the bootstrap.")] = 0,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    json_path: JsonFile = None,
) -> None:
    """Score an autoencoder's reconstructions, a transformer's samples, or images in files; one pass for all scores."""
    from smtool.pipelines.evaluate.asked import Asked
    from smtool.pipelines.evaluate.evaluation import evaluate
    from smtool.report.console import Console

    scores = {"fid": fid, "sfid": sfid, "is": inception_score, "kid": kid, "pr": pr, "psnr": psnr, "ssim": ssim}
    scores[f"lpips_{lpips_net}"] = lpips
    changes = {"kind": sampler, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval}
    asked = Asked(
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
    )
    evaluate(what, asked, console=Console())
