"""Where released code comes from: repository, branch, commit, and the packages that it imports."""

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkout:
    """folder: its name under REFERENCE; commit: the one the stored recordings were made from; packages: what it imports."""

    folder: str
    repository: str
    branch: str
    commit: str
    packages: tuple[str, ...]

    def open(self, reference: Path) -> Path:
        """Its path; SystemExit with one sentence if it or a package is missing or its commit is another one."""
        path = reference / self.folder
        if not path.is_dir():
            raise SystemExit(f"{path} is missing: check out {self.repository}, branch {self.branch}, commit {self.commit}, there.")
        found = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        if found != self.commit:
            raise SystemExit(f"{path} is at commit {found or 'unknown'}, but the recordings are of {self.commit}.")
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise SystemExit(f"{self.repository} needs {', '.join(missing)}: pip install {' '.join(missing)}.")
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
