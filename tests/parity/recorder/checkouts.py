"""The sources of released code: repository, branch, commit, and the packages that it imports."""

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

DISTRIBUTIONS = {"absl": "absl-py", "yaml": "pyyaml"}
"""Distribution that installs a module of another name."""


@dataclass(frozen=True)
class Checkout:
    """folder: its name under REFERENCE. commit: the one of the stored recordings. packages: the packages that it imports."""

    folder: str
    repository: str
    branch: str
    commit: str
    packages: tuple[str, ...]

    def open(self, reference: Path) -> Path:
        """The path of the checkout; raises SystemExit if it or a package is missing, or if it is at another commit."""
        path = reference / self.folder
        if not path.is_dir():
            raise SystemExit(f"{path} is missing: check out {self.repository}, branch {self.branch}, {self.commit}, there.")
        found = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        if found != self.commit:
            raise SystemExit(f"{path} is at commit {found or 'unknown'}, but the recordings are of {self.commit}.")
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            names = " ".join(DISTRIBUTIONS.get(name, name) for name in missing)
            raise SystemExit(f"{self.repository} needs {', '.join(missing)}: pip install {names}.")
        return path

    @property
    def source(self) -> dict[str, str]:
        return {"repository": self.repository, "branch": self.branch, "commit": self.commit}


ESM_TRAINER = Checkout(
    "SpectrumMatching-ESM",
    "forever208/SpectrumMatching",
    "SDVAE_and_ESM",
    "115c70bebbc856fb4a66b0dee08c7b4dd2e3aafc",
    ("accelerate", "diffusers", "lpips", "torch_dct", "torchmetrics", "yaml"),
)
DSM_TRAINER = Checkout(
    "SpectrumMatching-DSM",
    "forever208/SpectrumMatching",
    "DSM",
    "3d8680c2362d1187f5ca5784b3ad8bb72017dae5",
    ESM_TRAINER.packages,
)
REPA = Checkout(
    "REPA",
    "sihyun-yu/REPA",
    "main",
    "67f714503e3892f993844aab088ffc5791c92613",
    ("accelerate", "diffusers", "timm", "torchvision"),
)
IREPA = Checkout("iREPA", "End2End-Diffusion/iREPA", "main", "99ad4ac234efe8de52ce157120f72856e836d09f", REPA.packages)
UVIT = Checkout(
    "U-ViT",
    "baofff/U-ViT",
    "main",
    "ce551708dc9cde9818d2af7d84dfadfeb7bd9034",
    ("absl", "accelerate", "einops", "ml_collections"),
)
EQVAE = Checkout("eqvae", "zelaki/eqvae", "master", "c34589c4fb0d2a93da00ef403602a6b4ae223345", ("einops",))
SIT = Checkout("SiT", "willisma/SiT", "main", "947f95bd3a510e9af441d38c1e9f72e0eee873c5", ("timm",))
