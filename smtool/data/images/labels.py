"""The labels of images in folders and archives: from class folders, or from label files beside the images."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from smtool.data.images.classes import numbered
from smtool.data.images.columns import LabelRule
from smtool.data.images.entries import Stored
from smtool.data.images.kinds import LeftOut
from smtool.data.images.label_files import STYLEGAN, LabelFile, read_label_file
from smtool.errors import DataError, RecipeError

_CHUNK = re.compile(r"(?:.*/)?\d{5}/img\d{8}\.\w+")  # StyleGAN's folders of 1,000 images


@dataclass(frozen=True)
class Labels:
    """Class number by image ({} for none) and class names by number.

    unlabelled: why there are no labels; left_out: label files that are not used, and images that are missing; used: label files
    that are used.
    """

    numbers: Mapping[str, int]
    class_names: tuple[str, ...] = ()
    unlabelled: str = ""
    left_out: tuple[LeftOut, ...] = ()
    used: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Folders:
    """Class folder by image ({} if folders are not classes, for the reason `unlabelled`), and all images that are used."""

    images: tuple[str, ...]
    by_image: Mapping[str, str]
    unlabelled: str = ""


def choose_labels(folders: Folders, files: Mapping[str, Stored], others: Iterable[str], rule: LabelRule) -> Labels:
    """The labels that the rule asks for. files: label files by path; others: paths of the source that are not used.

    Raises DataError if class folders and a label file disagree, and if a label file has labels for some of the images only.
    """
    if rule.labels in ("none", "folders"):
        left_out = tuple(LeftOut(name, f"--labels {rule.labels}") for name in files)
        if rule.labels == "none":
            return Labels({}, (), "--labels none", left_out)
        if not folders.by_image:
            raise DataError(
                f"--labels folders: the images are not in class folders: {folders.unlabelled or 'they are in one folder'}."
            )
        return Labels(*_of_folders(folders), left_out=left_out)
    if rule.label_column is not None and not files:
        raise RecipeError(f"--label-column {rule.label_column}: the source has no table and no label file.", hint="Leave it out.")
    read = [read_label_file(name, place, rule) for name, place in sorted(files.items())]
    stating = [file for file in read if file.labels]
    unused = [LeftOut(file.name, file.reason or "states no labels") for file in read if not file.labels]
    if stating:
        labels = _of_files(folders, stating, set(others))
        unused += labels.left_out
        if labels.numbers:
            numbers, names = _agreed(folders, labels, rule)
            return Labels(numbers, names, "", tuple(unused), labels.used)
        unused += [LeftOut(name, labels.unlabelled) for name in sorted(labels.used)]
    reasons = [other.reason for other in unused if other.id in files]
    if rule.labels == "file":
        raise DataError(f"--labels file: {'; '.join(reasons) or 'the source has no label file'}.")
    numbers, names, unlabelled = _of_folders(_without_chunks(folders, files))
    return Labels(numbers, names, "" if numbers else "; ".join([unlabelled] * bool(unlabelled) + reasons), tuple(unused))


def _of_folders(folders: Folders) -> tuple[dict[str, int], tuple[str, ...], str]:
    names = tuple(sorted(set(folders.by_image.values())))
    numbers = {name: number for number, name in enumerate(names)}
    return {image: numbers[name] for image, name in folders.by_image.items()}, names, folders.unlabelled


def _of_files(folders: Folders, files: list[LabelFile], others: set[str]) -> Labels:
    """The labels of the images in all files together; names that are no images are left out."""
    images = set(folders.images)
    values: dict[str, object] = dict.fromkeys(folders.images)
    source: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for file in files:
        named = [image for image in file.labels if image in images]
        missing = [image for image in file.labels if image not in images and image not in others]
        if not named and missing:
            raise DataError(
                f"{file.name}: none of the {len(missing):,} files it names is an image of the source, the first {missing[0]}.",
                hint="Give paths relative to the file, or use --labels none.",
            )
        if not named:
            left_out.append(LeftOut(file.name, "its images are not used"))
        left_out += [LeftOut(image, f"named in {file.name}, but missing") for image in missing]
        for image in named:
            if image in source and values[image] != file.labels[image]:
                raise DataError(
                    f"{source[image]} and {file.name} give {image} different labels:"
                    f" {str(values[image])[:40]} and {str(file.labels[image])[:40]}.",
                    hint="Remove one of the two files, or use --labels none.",
                )
            values[image], source[image] = file.labels[image], file.name
    used = sorted(set(source.values()))
    declared = {file.class_names for file in files if file.name in used}
    if len(declared) > 1:
        raise DataError(f"{used[0]} and {used[1]} declare different classes.", hint="Save them with the same features.")
    numbers, names, unlabelled = numbered(values, declared.pop() if declared else (), ", ".join(used[:3]))
    return Labels(numbers, names, unlabelled, tuple(left_out), frozenset(used))


def _agreed(folders: Folders, labels: Labels, rule: LabelRule) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """The labels of the files and their names, which are those of the class folders if the two agree. Raises DataError if not."""
    classes = _without_chunks(folders, labels.used).by_image
    if not classes or rule.labels == "file":
        return labels.numbers, labels.class_names
    numbers_of, folders_of = defaultdict(set), defaultdict(set)
    for image, folder in classes.items():
        numbers_of[folder].add(labels.numbers[image])
        folders_of[labels.numbers[image]].add(folder)
    for image, folder in sorted(classes.items()):
        number = labels.numbers[image]
        if len(numbers_of[folder]) > 1 or len(folders_of[number]) > 1:
            named = f"class {labels.class_names[number] if labels.class_names else number}"
            raise DataError(
                f"The class folders and {', '.join(sorted(labels.used)[:3])} disagree:"
                f" {image} is of {named}, and the images of that class are not exactly those of folder {folder}.",
                hint="Choose one of them: --labels file, --labels folders or --labels none.",
            )
    if labels.class_names or sorted(folders_of) != list(range(len(folders_of))):
        return labels.numbers, labels.class_names
    return labels.numbers, tuple(folders_of[number].pop() for number in range(len(folders_of)))


def _without_chunks(folders: Folders, files: Iterable[str]) -> Folders:
    """No class folders beside StyleGAN's dataset.json if all images are in its numbered folders of 1,000 images."""
    if any(name.lower().endswith(STYLEGAN) for name in files) and all(map(_CHUNK.fullmatch, folders.images)):
        return Folders(folders.images, {}, "")
    return folders
