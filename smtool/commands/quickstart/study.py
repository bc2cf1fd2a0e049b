"""`smtool quickstart`: the whole pipeline in small. Photographs, autoencoders with and without DSM, their spectra and scores, a
transformer on the latents of each, its samples and their scores, and a page."""

import time
from pathlib import Path

from smtool.commands.evaluate.evaluation import evaluate
from smtool.commands.evaluate.result import ReconstructionEvaluation
from smtool.commands.quickstart import generation
from smtool.commands.quickstart.page import Study, first_figures, quickstart_page
from smtool.commands.quickstart.scores import Look
from smtool.commands.train.side_by_side import Job, train_side_by_side
from smtool.data import ImageShards, open_images
from smtool.devices import one_thread
from smtool.diffusability.spectrum import spectrum
from smtool.diffusability.strips import measure_following, strips
from smtool.evaluation.options import EvalOptions
from smtool.image_shape import ImageSize
from smtool.inference.reconstruct import reconstructed
from smtool.networks.tokenizer import Tokenizer
from smtool.recipe import TrainAE, load
from smtool.report.console import Console, duration
from smtool.report.plots import figure_bytes, reconstruction_grid
from smtool.storage import write_bytes
from smtool.tokenizers import identify, open_tokenizer

RECIPES = {"plain": "quickstart/plain", "dsm": "quickstart/dsm"}
"""Trained here, for about a minute."""
SPECIMENS = {"plain": "specimen:plain", "dsm": "specimen:dsm"}
"""Trained for an hour, by recipes/specimen; they come with smtool. All comparisons are at the size of their images."""
GRID_IMAGES, NUM_SCORED = 10, 128


def quickstart(out: Path = Path("runs/quickstart"), *, console: Console) -> Path:
    """Run the commands one after the other, in `out`, and write out/report.html, whose path is returned.

    Run again, it resumes what was stopped and keeps what is finished.
    """
    start = time.monotonic()
    recipes = {name: load(recipe, TrainAE) for name, recipe in RECIPES.items()}
    runs = {name: out / name for name in recipes}
    data = recipes["plain"].tables.data
    size = ImageSize.of(identify(SPECIMENS["plain"]).metadata["recipe"]["data"]["image_size"])
    images = _prepared(data.train, [data.image_size, size], console)
    console.rule(f"2/6  smtool train-ae {' and '.join(RECIPES.values())}")
    train_side_by_side([Job(recipe, runs[name]) for name, recipe in recipes.items()], console=console)
    with one_thread():
        console.rule(f"3/6  smtool spectrum {' '.join(SPECIMENS.values())} --plot")
        found = spectrum(list(SPECIMENS.values()), plot=True, data=str(images.folder), out=out / "spectrum", console=console)
        console.rule("4/6  smtool eval, for each")
        specimens, live = ({name: open_tokenizer(what) for name, what in part.items()} for part in (SPECIMENS, runs))
        autoencoders = [*specimens.values(), *live.values()]
        looks = {one.label: _look(one, images, console) for one in autoencoders}
        following = measure_following({one.label: one for one in autoencoders}, images)
    console.rule(f"5/6  smtool train-dit {generation.RECIPE}, on the latents of {' and '.join(SPECIMENS.values())}")
    transformers = generation.train_transformers(SPECIMENS, out, console=console)
    with one_thread():
        console.rule(f"6/6  smtool sample, smtool eval, for {' and '.join(map(str, transformers.values()))}")
        samples = {name: generation.draw_samples(run, console=console) for name, run in transformers.items()}
        crops = open_images(data.train, "train", image_size=size)
        generations = {
            specimens[name].label: generation.look_at(run, samples[name], crops, console=console)
            for name, run in transformers.items()
        }
        study = Study(
            recipes, runs,
            specimens={name: one.label for name, one in specimens.items()},
            live={name: one.label for name, one in live.items()},
            specimen_strips=strips({one.label: one for one in specimens.values()}, images),
            live_strips=strips({one.label: one for one in live.values()}, images),
            following=following, looks=looks, spectrum=found, generations=generations,
        )
    for name, figure in first_figures(study).items():
        write_bytes(out / f"{name}.png", figure_bytes(figure, "png"))
    quickstart_page(study).write(out / "report.html")
    console.print(f"\n{out / 'report.html'}  ({duration(time.monotonic() - start)}; open it in a browser)")
    return out / "report.html"


def _prepared(source: str, sizes: list[ImageSize], console: Console) -> ImageShards:
    """The validation images of the last size; prepares both splits on first use, at every size."""
    console.rule(f"1/6  smtool prepare {source} --size {' and --size '.join(map(str, sizes))}")
    for size in sizes:
        with console.progress(f"preparing {source}") as report:
            images = open_images(source, "val", image_size=size, report=report)
        console.print(f"{images.folder}: {images.card.count('train'):,} training and {len(images):,} validation images")
    return images


def _look(autoencoder: Tokenizer, images: ImageShards, console: Console) -> Look:
    """Scores, and one crop of each of the first photographs with its reconstruction from the mean of the posterior."""
    options = EvalOptions(data=str(images.folder), num_images=min(NUM_SCORED, len(images)))
    evaluation = evaluate(autoencoder.source, options, console=console)
    assert isinstance(evaluation, ReconstructionEvaluation)
    groups = images.groups or [str(i) for i in range(len(images))]
    first = [groups.index(group) for group in dict.fromkeys(groups)][:GRID_IMAGES]
    (part,) = reconstructed(autoencoder, [images.read(first)])
    grid = reconstruction_grid(part.images, part.decoded)
    return Look(grid, sum(parameter.numel() for parameter in autoencoder.parameters()), evaluation)
