"""Mutated and hostile archives and folders of images, prepared into the output folder."""

import io
import os
import stat
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random

from campaign.mutation import mutated_bytes
from campaign.sandbox import Case, Sandbox
from smtool.commands.prepare.images import prepare
from smtool.evaluation.image_sources import open_source

_OUTSIDE = (
    "../outside.png",
    "../../outside.png",
    "/tmp/campaign-outside.png",
    "a/../../b.png",
    "./a//b.png",
    "C:\\x.png",
    "a\\..\\x.png",
)
_NAMES = ("", ".", "..", "a/", "x" * 255 + ".png", "\udcff.png", "é/b.png", "a\nb.png", "con.png", "-.png",
          "__MACOSX/._a.png", "a.png/b.png", "x.tar", "n00000001.tar", "a/b/c/d/e.png", "0.png", "0.cls", "0.json")  # fmt: skip


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    made = rng.choice((_damaged, _damaged, _hostile_tar, _hostile_tar, _hostile_zip, _shard, _folder))
    what, source = made(originals, rng, box)
    if rng.random() < 0.1 and "{" not in source:
        return Case(f"{what}, scored", lambda: list(open_source(source).read(range(1), 1)))
    return Case(what, lambda: prepare(source, out=box.out / "prepared", size=8, workers=1, max_bad=rng.choice((0.01, 1.0))))


def _damaged(originals: Path, rng: Random, box: Sandbox) -> tuple[str, str]:
    source = rng.choice(sorted((originals / "archives").iterdir()))
    what, data = mutated_bytes(_bytes(source), rng)
    (box.inside / source.name).write_bytes(data)
    return f"{source.name}: {what}", str(box.inside / source.name)


def _picture(originals: Path) -> bytes:
    return _bytes(originals / "pictures/rgb.png")


def _hostile_tar(originals: Path, rng: Random, box: Sandbox) -> tuple[str, str]:
    said, data = [], io.BytesIO()
    mode = rng.choice(("w", "w", "w:gz", "w:bz2", "w:xz"))
    style = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=data, mode=mode, format=style, errors="surrogateescape") as tar:  # type: ignore[call-overload]
        for number in range(rng.choice((1, 2, 4))):
            member = tarfile.TarInfo(rng.choice((*_OUTSIDE, *_NAMES, f"a/{number}.png", f"b/{number}.png")))
            kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
            member.type = rng.choice((*kinds, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE))
            member.linkname = rng.choice((*_OUTSIDE, member.name, "/etc/passwd", "/dev/zero", "a/0.png", ""))
            content = rng.choice((_picture(originals), _picture(originals), b"", bytes(500_000)))
            member.size = len(content) if member.isreg() else 0
            said.append(f"{member.name[:30]!r} of type {member.type!r}")
            try:
                tar.addfile(member, io.BytesIO(content))
            except (ValueError, OverflowError):
                said.append("(not written)")
    path = box.inside / f"x.tar{mode[1:].replace(':', '.')}"
    content = data.getvalue()
    if rng.random() < 0.3:
        more, content = mutated_bytes(content, rng)
        said.append(more)
    path.write_bytes(content)
    return f"{path.name}: {', '.join(said)}", str(path)


def _hostile_zip(originals: Path, rng: Random, box: Sandbox) -> tuple[str, str]:
    said, path = [], box.inside / "x.zip"
    with zipfile.ZipFile(
        path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    ) as new:
        for number in range(rng.choice((1, 2, 4))):
            name = rng.choice((*_OUTSIDE, *_NAMES, f"a/{number}.png")).encode(errors="replace").decode()
            member = zipfile.ZipInfo(name or "x")
            kind = rng.choice((stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFDIR))
            member.external_attr = (kind | 0o644) << 16
            content = rng.choice((_picture(originals), _picture(originals), b"../../outside", b"", bytes(500_000)))
            new.writestr(member, content, new.compression)
            said.append(f"{name[:30]!r} {kind:o}")
    data = path.read_bytes()
    if rng.random() < 0.4:
        more, data = mutated_bytes(data, rng)
        said.append(more)
    path.write_bytes(data)
    return f"x.zip: {', '.join(said)}", str(path)


def _shard(originals: Path, rng: Random, box: Sandbox) -> tuple[str, str]:
    """A webdataset shard with odd members beside its images."""
    said = []
    with tarfile.open(box.inside / "s-000000.tar", "w") as tar:
        for number in range(3):
            members = {
                "png": _picture(originals),
                "cls": rng.choice((b"0", b"1", b"-1", b"x", b"", b"9" * 30, b"1.5", b"\xff", b"1\n", b"99999999")),
            }
            members["json"] = rng.choice((b"{}", b"[]", b"{", b"null", b'{"id": 5}', b'{"group": [1]}', b"\xff\xfe"))
            if rng.random() < 0.3:
                members[rng.choice(("jpg", "input.png", "txt", "seg.png", "npy", "PNG", "png", ""))] = _picture(originals)
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number}{'.' if suffix else ''}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            said.append(f"cls {members['cls']!r} json {members['json']!r} {list(members)[3:]}")
    name = rng.choice(("s-000000.tar", "s-{000000..000000}.tar", "s-{000000..000003}.tar", "s-*.tar", ""))
    return f"{name}: {', '.join(said)}", str(box.inside / name)


def _folder(originals: Path, rng: Random, box: Sandbox) -> tuple[str, str]:
    """A folder with links, circles, devices and odd names. /dev/zero never ends."""
    said, root = [], box.inside / "images"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(_picture(originals))
    targets = (
        root,
        root / "a",
        root / "a/0.png",
        Path("/dev/zero"),
        Path("/dev/null"),
        Path("nothing"),
        Path("/etc/passwd"),
        Path(".."),
    )
    for number in range(rng.choice((1, 2, 3))):
        name = rng.choice(
            (f"a/{number + 1}.png", f"{number}.png", f"c{number}", f"b/\udcff{number}.png", "metadata.jsonl", "dataset.json")
        )
        path = root / name
        if path.exists() or path.is_symlink():
            continue
        match rng.choice(("link", "link", "fifo", "folder", "empty", "text", "closed")):
            case "link":
                target = rng.choice(targets)
                path.symlink_to(target)
                said.append(f"{name!r} -> {target.name}")
            case "fifo":
                os.mkfifo(path)
                said.append(f"{name!r} a pipe")
            case "folder":
                path.mkdir()
                said.append(f"{name!r} a folder")
            case "closed":
                path.write_bytes(_picture(originals))
                path.chmod(0)
                said.append(f"{name!r} without permissions")
            case kind:
                path.write_bytes(b"" if kind == "empty" else rng.choice((b"hello", b"[", b"{}", b'{"file_name": "../x.png"}')))
                said.append(f"{name!r} {kind}")
    return f"folder: {', '.join(said)}", str(root)
