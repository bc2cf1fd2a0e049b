"""Datasheets of GPUs, the share of them that training reaches, and the time of counted kernels."""

from dataclasses import dataclass
from typing import Final

from smtool.cost.counting import Count, Kernel
from smtool.errors import RecipeError

MATRIX_EFFICIENCY: Final = 0.6
"""Share of the peak that matrix products and convolutions reach. An assumption: large bf16 products alone can reach 0.8 (790 of
989 TFLOP/s on an H200), and the shapes of a training step reach less. docs/results/cost.md compares with published runs."""
MEMORY_EFFICIENCY: Final = 0.8
"""Share of the memory bandwidth that element-wise kernels reach. An assumption."""
LINK_EFFICIENCY: Final = 0.8
"""Share of the interconnect's bandwidth that collective operations on large buffers reach. An assumption."""
LAUNCH_SECONDS: Final = 8e-6
"""Time in which PyTorch starts one kernel without compilation; the device waits if its kernels are shorter. An assumption."""
GPUS_PER_NODE: Final = 8


@dataclass(frozen=True)
class GPU:
    """A GPU of a datasheet. peak: FLOP/s of dense products by number format; bandwidth: of its memory, bytes/s; memory: bytes;
    link, network: bytes/s in one direction between GPUs of a node, and of one GPU between nodes."""

    name: str
    title: str
    peak: dict[str, float]
    bandwidth: float
    memory: float
    link: float
    network: float
    source: str

    def floor_seconds(self, count: Count) -> float:
        """The larger of the time of all FLOPs at their peaks and the time of all bytes at the full bandwidth."""
        arithmetic = sum(flops / self.peak[unit] for unit, flops in count.flops_by_unit().items())
        return max(arithmetic, count.bytes / self.bandwidth)

    def seconds(self, count: Count) -> float:
        """Predicted time: kernels one after another, each bound by FLOPs or by bytes, at the efficiencies of this module."""
        return max(sum(self._kernel_seconds(kernel) for kernel in count.kernels), LAUNCH_SECONDS * len(count.kernels))

    def _kernel_seconds(self, kernel: Kernel) -> float:
        arithmetic = kernel.flops / (MATRIX_EFFICIENCY * self.peak[kernel.unit]) if kernel.flops else 0.0
        return max(arithmetic, kernel.bytes / (MEMORY_EFFICIENCY * self.bandwidth))

    def link_seconds(self, sent: float, gpus: int) -> float:
        """Time in which each of several GPUs sends this many bytes around a ring."""
        return sent / (LINK_EFFICIENCY * (self.link if gpus <= GPUS_PER_NODE else self.network))


_HOPPER = {"bf16": 989.4e12, "fp16": 989.4e12, "tf32": 494.7e12, "fp32": 66.9e12, "fp64": 33.5e12}
_AMPERE = {"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "fp32": 19.5e12, "fp64": 9.7e12}
_ADA = {"bf16": 165.2e12, "fp16": 165.2e12, "tf32": 82.6e12, "fp32": 82.6e12, "fp64": 1.29e12}

GPUS: Final = {
    gpu.name: gpu
    for gpu in (
        GPU("h100", "H100 SXM 80 GB", _HOPPER, 3.35e12, 80e9, 450e9, 50e9, "NVIDIA H100 Tensor Core GPU datasheet; DGX H100"),
        GPU("h200", "H200 SXM 141 GB", _HOPPER, 4.8e12, 141e9, 450e9, 50e9, "NVIDIA H200 Tensor Core GPU datasheet; DGX H200"),
        GPU("a100", "A100 SXM 80 GB", _AMPERE, 2.039e12, 80e9, 300e9, 25e9, "NVIDIA A100 Tensor Core GPU datasheet; DGX A100"),
        GPU(
            "4090", "GeForce RTX 4090 24 GB", _ADA, 1.008e12, 24e9, 32e9, 12.5e9,
            "NVIDIA Ada GPU Architecture whitepaper; PCIe 4.0 x16; between nodes 100 Gb/s, assumed",
        ),
    )
}  # fmt: skip
"""Peaks are those without sparsity; of fp16 and bf16 with float32 sums. fp32 is without tensor cores."""
DEFAULT_GPU: Final = "h100"


_INSTALLED: Final = {
    "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100", "NVIDIA GeForce RTX 4090": "4090"
}
"""Names by which CUDA knows these GPUs; versions of other forms (PCIe, NVL, laptops) have other peaks."""


def installed_gpu(name: str) -> GPU | None:
    """A GPU by the name that CUDA gives it; None for others."""
    return GPUS[_INSTALLED[name]] if name in _INSTALLED else None


def find_gpu(name: str) -> GPU:
    """A GPU by name. Raises RecipeError, which lists the names, for another one."""
    if name.lower() not in GPUS:
        raise RecipeError(f"--gpu {name}: this GPU is not known.", hint=f"Known are {', '.join(GPUS)}.")
    return GPUS[name.lower()]
