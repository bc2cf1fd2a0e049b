"""How much a report measures: the full protocol, and the order of the cuts that make it fit into a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from smtool.diffusability.inputs.subjects import PassSeconds
from smtool.diffusability.sections.drift import DECODINGS
from smtool.diffusability.sections.low_pass import ROWS_REMOVED
from smtool.diffusability.sections.transfer import BANDS
from smtool.image_shape import ImageSize

NUM_KEPT, NUM_TRANSFER, NUM_SHIFTS, NUM_DRIFT = 32, 16, 16, 16
"""Number of images kept whole for the decoding sections, and the largest numbers used for band transfer, shift errors and
drift."""
FEWEST_ENCODED = 16
SMALLEST_SIDE = 128
_REMOVALS = ((0, 4, 8, 10, 12, 14), (0, 8, 12))
_BANDS = (4,)
_DECODED = (16, 8, 4)
_OVERHEAD = 1.15
"""Time of a report over that of its network passes; measured 1.14 for specimen:plain with 240 images of 64 px."""
_DECODES_SHIFT, _ENCODES_SHIFT = 3, 2


@dataclass(frozen=True)
class Protocol:
    """Numbers of images and measurements of a report.

    encoded: images that are encoded; size: of the images; decoded: images that are decoded, 0 for none;
    removals: numbers of removed anti-diagonals, () without the low-pass curve; bands: of the band transfer, 0 without it;
    shifts: whether shift errors are measured; drift: whether decoders are compared with that of the reference.
    """

    encoded: int
    size: ImageSize
    decoded: int
    removals: tuple[int, ...] = ROWS_REMOVED
    bands: int = BANDS
    shifts: bool = True
    drift: bool = False

    @classmethod
    def full(cls, images: int, size: ImageSize, *, drift: bool = False) -> "Protocol":
        """The full protocol for this number of images (spectrum.md#cost-and-intervals)."""
        return cls(images, size, min(NUM_KEPT, images), drift=drift)

    @property
    def low_pass_images(self) -> int:
        return self.decoded if self.removals else 0

    @property
    def transfer_images(self) -> int:
        return min(NUM_TRANSFER, self.decoded) if self.bands else 0

    @property
    def shift_images(self) -> int:
        return min(NUM_SHIFTS, self.decoded) if self.shifts else 0

    @property
    def drift_images(self) -> int:
        return min(NUM_DRIFT, self.decoded) if self.drift else 0

    @property
    def decodes(self) -> int:
        """Number of decodings of all sections but drift."""
        whole = self.decoded * max(1, len(self.removals))
        return whole + (self.bands + 1) * self.transfer_images + _DECODES_SHIFT * self.shift_images

    def decoding_seconds(self, passes: Sequence[PassSeconds]) -> float:
        """Expected time of the sections that decode. passes: of every autoencoder."""
        encodes = _ENCODES_SHIFT * self.shift_images
        decodes = self.decodes + DECODINGS * self.drift_images      # of the reference it is less
        return _OVERHEAD * sum(decodes * one.decode_at(self.size) + encodes * one.encode_at(self.size) for one in passes)

    def encoding_seconds(self, passes: Sequence[PassSeconds]) -> float:
        """Expected time of encoding all images once."""
        return _OVERHEAD * self.encoded * sum(one.encode_at(self.size) for one in passes)

    def seconds(self, passes: Sequence[PassSeconds]) -> float:
        return self.encoding_seconds(passes) + self.decoding_seconds(passes)

    def fitted(self, passes: Sequence[PassSeconds], seconds: float, sizes: Sequence[ImageSize]) -> "Protocol":
        """The first protocol in the order of the cuts that takes at most `seconds`; the smallest one if none does.

        passes: of every autoencoder; sizes: smaller sizes that all of them accept, descending. Half of the time, or less if less
        suffices, is for encoding. The choice depends on the times only, not on measured values.
        """
        now = self
        for now in self._cuts(sizes):
            decoding = now.decoding_seconds(passes)
            if decoding + min(now.encoding_seconds(passes), seconds / 2) <= seconds:
                break
        left, each = seconds - now.decoding_seconds(passes), replace(now, encoded=1).encoding_seconds(passes)
        affordable = self.encoded if now.encoding_seconds(passes) <= left else int(left / each)
        return replace(now, encoded=min(self.encoded, max(FEWEST_ENCODED, affordable)))

    def shortened(self, passes: Sequence[PassSeconds], seconds: float) -> "Protocol":
        """The first protocol in the order of the cuts whose decoding sections take at most `seconds`; else the smallest."""
        now = self
        for now in self._cuts(()):
            if now.decoding_seconds(passes) <= seconds:
                break
        return now

    def cuts_from(self, full: "Protocol") -> list[str]:
        """What this protocol leaves out of the full one, in words."""
        said = []
        if self.removals and self.removals != full.removals:
            listed = ", ".join(map(str, self.removals))
            said.append(f"low-pass removals {len(full.removals)} -> {len(self.removals)} (n = {listed})")
        if self.bands and self.bands != full.bands:
            said.append(f"transfer bands {full.bands} -> {self.bands}")
        if self.decoded and self.decoded != full.decoded:
            said.append(f"decoded images {full.decoded} -> {self.decoded}")
        if self.size != full.size:
            said.append(f"size {full.size} -> {self.size} px (crops of the middle)")
        if self.encoded != full.encoded:
            said.append(f"encoded images {full.encoded} -> {self.encoded}")
        left_out = {
            "shift errors": full.shifts and not self.shifts, "band transfer": full.bands and not self.bands,
            "drift of decoders": full.drift and not self.drift,
            "low-pass curve": full.removals and not self.removals, "reconstructions": full.decoded and not self.decoded,
        }
        return said + [f"{section} not measured" for section, missing in left_out.items() if missing]

    def _cuts(self, sizes: Sequence[ImageSize]) -> Iterator["Protocol"]:
        """This protocol, then ever smaller ones: removals, transfer bands, decoded images, size, whole sections."""
        now = self
        yield now
        for removals in _REMOVALS:
            if len(removals) < len(now.removals):
                yield (now := replace(now, removals=removals))
        for bands in _BANDS:
            if bands < now.bands:
                yield (now := replace(now, bands=bands))
        for decoded in _DECODED:
            if decoded < now.decoded:
                yield (now := replace(now, decoded=decoded))
        for size in sizes:
            yield (now := replace(now, size=size))
        yield (now := replace(now, shifts=False))
        if now.drift:
            yield (now := replace(now, drift=False))
        yield (now := replace(now, bands=0))
        yield (now := replace(now, removals=()))
        yield replace(now, decoded=0)
