"""Tutorials and how-to guides: their commands and Python blocks run in order, at a small size.

Commands that need several processes, large images or published weights are parsed, and their recipes loaded, but not run.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
import warm_process
from safetensors.torch import load_file

from smtool.checkpoints import write_autoencoder
from smtool.cli import app
from smtool.commands.export import export
from smtool.commands.prepare.images import prepare
from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.networks.uvit import UViT
from smtool.randomness import initializing
from smtool.recipe import kind_of, load
from smtool.recipe.race import is_race, load_race
from smtool.report.console import Console
from smtool.report.grids import png_bytes

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.glob("tutorials/*.md"), *DOCS.glob("how-to/*.md")])
BUILTIN = "builtin:photos?train=16&val=16"
NOT_RUN = (
    "torchrun", "export SMTOOL", "--fid", "--lpips", "squeezenet", "--num-images 50000", "--size 256", "photos-256 --dry-run",
    "data/photos-256 --out", "recipes/heal", "runs/healed", "aligned.safetensors", "recipes/repa", "race-faces",
    "race runs/plain runs/dsm\n", "my-race.toml\n", "celeba64.pth", "--guide",
)
"""Parts of commands that are only parsed; a line ends with a line break."""
REPLACED = {"data/photos-256": "data/photos-64"}
SMALL_TRAINING = ("steps=2", "save_every=2", "evaluate_every=2", "data.batch=4", "data.workers=1", "tracking.tensorboard=false")
SMALL_AUTOENCODER = (
    *SMALL_TRAINING, "model.channels=[8,8,8]", "model.norm_groups=4", "validation.num_images=4", "validation.grid=2",
)
SMALL_TRANSFORMER = (
    *SMALL_TRAINING, "model.size=custom", "model.depth=2", "model.width=32", "model.heads=2", "data.image_size=64",
    "sampler.steps=2", "validation.num_images=4", "validation.grid=2",
)
SMALL_RACE = (
    "judge.num_images=10", "judge.predictors=false", "turn=2", "seeds=[0]",
    'transformer.changes=["steps=2","model.width=32","model.depth=2","validation.num_images=4","evaluate_every=2","data.batch=4"]',
)


@dataclass(frozen=True)
class Command:
    """A line of a console block; code: the exit code that its comment states."""

    line: str
    code: int = 0

    @property
    def is_run(self) -> bool:
        return not any(part in f"{self.line}\n" for part in NOT_RUN)

    @property
    def arguments(self) -> list[str]:
        """Of smtool; [] for another program."""
        words = shlex.split(self.line)
        return words[words.index("smtool") + 1 :] if "smtool" in words else []


@dataclass(frozen=True)
class Script:
    """A Python or TOML block; name: the file that it is written to, empty for one that is run."""

    name: str
    text: str


def blocks(page: Path) -> list[Command | Script]:
    """What a reader types, in the order of the page."""
    found: list[Command | Script] = []
    for language, text in re.findall(r"^```(console|python|toml)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        if language == "console":
            for line in re.findall(r"^\$ (.*)", text.replace("\\\n", " "), re.M):
                stated = re.search(r"#.*exit code (\d+)", line)
                found.append(Command(re.sub(r"\s+#.*", "", line), int(stated[1]) if stated else 0))
        else:
            name = re.match(r"# (\S+\.(?:py|toml))\n", text)
            found.append(Script(name[1] if name else "", text))
    return found


COMMANDS = [(page, block) for page in PAGES for block in blocks(page) if isinstance(block, Command)]


def test_there_are_pages_with_commands():
    assert len({page for page, _ in COMMANDS}) >= 11
    assert sum(command.is_run for _, command in COMMANDS) > 40


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.stem}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_commands_are_understood(page, command, tmp_path, monkeypatch):
    """By the command line's parser; the keys after --set by the recipe."""
    if not command.arguments:
        assert command.line.split()[0] in ("python", "export"), command.line
        return
    name, *arguments = command.arguments
    group = typer.main.get_command(app)
    context = group.commands[name].make_context(name, list(arguments))
    if name not in ("train-ae", "train-dit", "race"):
        return
    written = [block for block in blocks(page) if isinstance(block, Script) and block.name]
    monkeypatch.chdir(tmp_path)
    for file in written:
        Path(file.name).write_text(file.text)
    recipe = context.params["recipe"] if name != "race" else context.params["what"][0]
    changes = list(context.params["overrides"])
    if name == "race":
        if recipe.endswith(".toml"):
            assert is_race(recipe)
            load_race(recipe, changes)
    else:
        load(recipe, kind_of(recipe), changes)


@pytest.mark.parametrize("page", [DOCS / "index.md", *PAGES], ids=lambda page: page.stem)
def test_links_to_the_guides_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        if target.parent in (DOCS / "tutorials", DOCS / "how-to", DOCS / "results", DOCS):
            assert target.exists() or target.name == "quickstart.md", link


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """What the pages take for granted: photographs, an autoencoder, a transformer, files of other tools; all tiny."""
    folder = tmp_path_factory.mktemp("workshop")
    source = open_images("builtin:photos?train=24&val=2", "train", image_size=64, root=folder / "source")
    images = source.read(range(24)).images
    for number, image in enumerate(to_uint8(images)):
        for place in ("photos", f"odd/{'cats' if number % 2 else 'dogs'}"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            if place == "photos" or number < 10:
                (folder / place / f"{number:04d}.png").write_bytes(png_bytes(image))
    whole = (folder / "photos" / "0011.png").read_bytes()
    (folder / "odd" / "dogs" / "broken.png").write_bytes(whole[: len(whole) // 2])
    with initializing("pages"):
        autoencoder = SDVAE(downsample=4, latent_channels=4, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build()
    with torch.no_grad():
        posterior = autoencoder.encode(images)
        std = (posterior.mean.var() + posterior.logvar.exp().mean()).sqrt()
    autoencoder.stats = LatentStats("scalar", torch.zeros(1), std[None], count=0, data="published")
    recipe = {"data": {"train": "data/photos-64", "image_size": 64, "batch": 4}}
    for name in ("dsm", "sd-vae"):
        write_autoencoder(folder / "runs" / name / "ckpt.safetensors", autoencoder, {"recipe": recipe})
    write_autoencoder(folder / "ae.safetensors", autoencoder, {"recipe": recipe})
    for name in ("sd-vae-ft-mse", "my-vae"):
        export(str(folder / "ae.safetensors"), to="diffusers", out=folder / name, console=Console(file=io.StringIO()))
    prepare(str(folder / "photos"), out=folder / "data" / "photos-64", size=64, val_fraction=0.4, workers=1)
    call = ["train-dit", "recipes/sit.toml", *_set(SMALL_TRANSFORMER), "--data", "data/photos-64"]
    done = warm_process.run(*call, cwd=folder, env=_environment(folder))
    assert done.returncode == 0, done.stderr
    tensors = load_file(folder / "runs" / "sit" / "ckpt.safetensors")
    network = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    network["y_embedder.embedding_table.weight"] = torch.zeros(1001, network["x_embedder.proj.weight"].shape[0])
    torch.save({"ema": network}, folder / "SiT-XL-2-256x256.pt")
    with initializing("pixels"):
        pixels = UViT(size="custom", depth=2, width=32, heads=2, patch=4).build((3, 32, 32), 0)
    torch.save(pixels.state_dict(), folder / "nnet_ema.pth")
    return folder


GIVEN = {      # page -> what of the workshop it starts with; the other pages make what they need
    "my-own-images": ["photos", "odd"],
    "prepare-images": ["odd"],
    "is-my-vae-diffusable": ["ae.safetensors", "data"],
    "alignment": [],
    "dct": ["photos"],
    "own-autoencoder": ["my-vae", "runs/dsm", "data"],
    "published-transformers": ["SiT-XL-2-256x256.pt", "nnet_ema.pth", "sd-vae-ft-mse", "data"],
    "scores-for-a-paper": ["runs", "data"],
}
PAGES_THAT_RUN = [page for page in PAGES if any(not isinstance(block, Command) or block.is_run for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=lambda page: page.stem)
def test_a_page_works_from_its_first_line_to_its_last(page, workshop, tmp_path, monkeypatch, command):
    for name in GIVEN.get(page.stem, []):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(workshop / name)
    if page.stem == "own-autoencoder":
        _save_patch_vae(tmp_path / "patch-vae.pt")
    monkeypatch.chdir(tmp_path)
    warm_process.fork_workers(monkeypatch.setattr)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-weights"))
    monkeypatch.delenv("SMTOOL_WEIGHTS", raising=False)
    monkeypatch.setattr("smtool.report.html.inline_svg", lambda *figure, **words: "<svg></svg>")      # takes half of the time
    for block in blocks(page):
        if isinstance(block, Script) and block.name:
            Path(block.name).write_text(block.text)
        elif isinstance(block, Script):
            exec(compile(block.text, str(page), "exec"), {})
        elif block.is_run and not block.arguments:
            program, *arguments = shlex.split(block.line)
            assert program == "python"
            small = (*SMALL_AUTOENCODER, f"data.train='{BUILTIN}'")
            done = subprocess.run(
                [sys.executable, *arguments, *small], env=_environment(tmp_path), capture_output=True, text=True, timeout=120
            )
            assert done.returncode == block.code, f"{block.line}: {done.stderr}"
        elif block.is_run:
            code, _, err = command(*_small(block.arguments))
            assert code == block.code, f"{block.line}: {err}"


def _small(arguments: list[str]) -> list[str]:
    """The arguments with REPLACED words, and options that make the work small added at the end."""
    arguments = [REPLACED.get(word, word) for word in arguments]
    name, given = arguments[0], " ".join(arguments)
    if name == "train-ae":
        images = () if "--data" in arguments else (f"data.train='{BUILTIN}'",)
        return [*arguments, *_set((*SMALL_AUTOENCODER, *images))]
    if name == "train-dit":
        return [*arguments, *_set(SMALL_TRANSFORMER)]
    if name == "race":
        again = "runs/short-race" in arguments[1:2]      # a finished race, of which only the judge changes
        return [*arguments, "--jobs", "1", *(() if again else (*_set(SMALL_RACE), "--budget", "2"))]
    if name == "prepare":
        return [*arguments, "--workers", "1", *(() if "odd" in arguments or "--latents" in arguments else ("--split", "0.4"))]
    if name == "sample":
        heads = ("--heads", "2") if "--autoencoder" in arguments else ()
        return [*arguments, "--num-images", "12", "--steps", "2", *heads]
    if name == "export" and "--autoencoder" in arguments:
        return [*arguments, "--heads", "2"]
    if name == "eval":
        drawn, loose = "runs/sit" in given, "samples" in arguments
        return [*arguments, "--num-images", "12" if drawn or loose else "4", *(("--steps", "2") if drawn else ())]
    if name == "spectrum":
        tables = [word for word in arguments if word != "--plot"]      # a page of plots takes 5 seconds, and has tests of its own
        return [*tables, "--num-images", "8", *(() if "--data" in arguments else ("--data", BUILTIN))]
    return arguments


def _set(changes: tuple[str, ...]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_HOME": str(folder / "no-weights"), "SMTOOL_WEIGHTS": ""}


def _save_patch_vae(path: Path) -> None:
    with initializing("patch-vae"):
        layers = {"down": torch.nn.Conv2d(3, 8, 4, stride=4), "up": torch.nn.ConvTranspose2d(8, 3, 4, stride=4)}
    torch.save({f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}, path)
