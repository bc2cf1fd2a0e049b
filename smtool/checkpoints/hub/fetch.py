"""Autoencoders on the Hugging Face hub: `org/name`, `org/name:subfolder`, `org/name:file` and `org/name@revision`.

Files are kept in the hub's own cache. A copy that is in the cache is used without asking the hub.
"""

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smtool.checkpoints.foreign.diffusers import WEIGHTS
from smtool.checkpoints.hub.published import PUBLISHED
from smtool.checkpoints.shards import INDEX
from smtool.checkpoints.tensor_file import PICKLED
from smtool.errors import CheckpointError, WeightsError
from smtool.features.hub_answers import hub_answers

_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::(\w[\w./ -]*))?(?:@([\w./-]+))?")
_LOCAL = ("runs", "recipes", "data", "docs", "tests", "weights", "checkpoints", "models")
"""Names of folders, which are not asked for on the hub as owners of repositories."""
_ENDINGS = (".safetensors", *PICKLED)
_WHOLE = (f"{WEIGHTS}.safetensors", f"{WEIGHTS}{INDEX}", f"{WEIGHTS}.fp16.safetensors", f"{WEIGHTS}.bin",
          "ckpt.safetensors", "model.safetensors", f"model{INDEX}")
"""Names of weights that are found in a folder by themselves, best first."""
_SHOWN = 6


@dataclass(frozen=True)
class HubName:
    """inside: a folder or file of the repository, "" for its root; revision: branch, tag or commit."""

    repository: str
    inside: str = ""
    revision: str = "main"

    def __str__(self) -> str:
        inside = f":{self.inside}" if self.inside else ""
        return f"{self.repository}{inside}" + (f"@{self.revision}" if self.revision != "main" else "")


def hub_name(text: str) -> HubName | None:
    """The repository that a short name of `published.py` or `org/name...` refers to; None for other texts and local folders."""
    short = text.partition("@")[0]
    text = text.replace(short, PUBLISHED[short].place, 1) if short in PUBLISHED else text
    found = _NAME.fullmatch(text)
    if found is None or found[1].endswith((*_ENDINGS, ".toml", ".json")):
        return None
    owner = found[1].split("/")[0]
    return None if owner in _LOCAL or Path(owner).is_dir() else HubName(found[1], found[2] or "", found[3] or "main")


def fetched(name: HubName) -> Path:
    """The file or folder of a hub name: from the cache, else downloaded after its size has been printed to stderr.

    Raises WeightsError if it is not in the cache and the hub cannot be reached or wants a login, CheckpointError if the
    repository, its revision or its weights do not exist.
    """
    if (cached := _cached(name)) is not None:
        return cached
    sizes = _listed(name)
    place, wanted = selected(name, sizes)
    total = sum(sizes[file] for file in wanted)
    files = f"{len(wanted)} files" if len(wanted) > 1 else wanted[0]
    print(f"Downloading {name}: {files}, {total / 1e6:,.1f} MB, into {_cache()}.", file=sys.stderr)
    return _downloaded(name, wanted) / place


def selected(name: HubName, files: Collection[str]) -> tuple[str, list[str]]:
    """(place of the autoencoder in the repository, files to download). files: all files of the repository.

    Raises CheckpointError, listing the files of weights there are, if none or several could be meant.
    """
    if name.inside in files:
        return name.inside, [name.inside, *_config(files, str(PurePosixPath(name.inside).parent))]
    folder = name.inside.strip("/") or ("vae" if {"model_index.json", "vae/config.json"} <= set(files) else ".")
    inside = {file for file in files if str(PurePosixPath(file).parent) == folder}
    found = {PurePosixPath(file).name: file for file in inside}
    for one in _WHOLE:
        if one in found:
            return folder, sorted([found[one], *_config(files, folder), *_shards(one, found)])
    for endings in ((".safetensors",), PICKLED):
        alone = sorted(file for file in inside if file.endswith(endings))
        if len(alone) == 1:
            return alone[0], sorted([*alone, *_config(files, folder)])
    weights = sorted(file for file in files if file.endswith(_ENDINGS))
    listed = ", ".join(weights[:_SHOWN]) + (" ..." if len(weights) > _SHOWN else "")
    where = f"the folder {name.inside} of {name.repository}" if name.inside else name.repository
    raise CheckpointError(
        f"{name}: {where} on the hub does not show which file is meant.",
        hint=f"Name a folder or file of it, as in {name.repository}:FILE; its weights are {listed}." if weights else
        "It has no files of weights (.safetensors, .pt, .ckpt, .bin).",
    )


def _config(files: Collection[str], folder: str) -> list[str]:
    config = "config.json" if folder == "." else f"{folder}/config.json"
    return [config] if config in files else []


def _shards(index: str, found: Mapping[str, str]) -> list[str]:
    """Shards of an index; none for a whole file."""
    if not index.endswith(INDEX):
        return []
    shard = re.compile(rf"{re.escape(index.removesuffix(INDEX))}-\d{{5}}-of-\d{{5}}\.safetensors")
    return [file for one, file in found.items() if shard.fullmatch(one)]


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached(name: HubName) -> Path | None:
    """The place in the cache if everything that would be downloaded is there, else None."""
    home = _cache() / f"models--{name.repository.replace('/', '--')}"
    reference = home / "refs" / name.revision
    snapshot = home / "snapshots" / (reference.read_text().strip() if reference.is_file() else name.revision)
    files = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    try:
        place, wanted = selected(name, files)
    except CheckpointError:
        return None
    index = [file for file in wanted if file.endswith(INDEX)]
    totals = {int(found[1]) for file in wanted if (found := re.search(r"-of-(\d{5})\.safetensors$", file))}
    complete = not index or totals == {len(wanted) - len(index) - len(_config(files, str(PurePosixPath(index[0]).parent)))}
    return snapshot / place if complete else None


def _listed(name: HubName) -> dict[str, int]:
    """Size in bytes of every file of the repository."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE or not hub_answers():
        raise _missing(name, f"the hub ({constants.ENDPOINT}) cannot be reached")
    try:
        info = HfApi(endpoint=constants.ENDPOINT).model_info(name.repository, revision=name.revision, files_metadata=True)
    except GatedRepoError as error:
        raise _missing(name, "its owner wants you to accept a licence and to log in (`hf auth login`)") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: no such file, folder or run here, and no such repository on the hub ({constants.ENDPOINT}).",
            hint="Check the spelling; a private repository needs `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: {name.repository} has no revision {name.revision!r} on the hub.") from error
    except (HfHubHTTPError, OSError) as error:
        raise _missing(name, _first_line(error)) from error
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _downloaded(name: HubName, wanted: Collection[str]) -> Path:
    """Download into the cache; returns the root of the snapshot."""
    from huggingface_hub import constants, hf_hub_download

    for file in wanted:
        try:
            path = hf_hub_download(
                name.repository, file, revision=name.revision, cache_dir=_cache(), endpoint=constants.ENDPOINT
            )
        except Exception as error:      # the hub's client raises errors of several libraries
            raise _missing(name, f"the download of {file} failed: {_first_line(error)}") from error
    return Path(path).parents[len(PurePosixPath(file).parts) - 1]


def _missing(name: HubName, reason: str) -> WeightsError:
    folder = f' --include "{name.inside}*"' if name.inside else ""
    revision = f" --revision {name.revision}" if name.revision != "main" else ""
    return WeightsError(
        f"{name} is not on this machine (no such file or run, and not in the hub's cache {_cache()}), and {reason}.",
        hint=f"Where it can be reached, run `hf download {name.repository}{folder}{revision} --local-dir FOLDER`, copy FOLDER "
        "here and pass its path, or copy that machine's cache and set HF_HUB_CACHE to it.",
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
