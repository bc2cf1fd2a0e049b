"""Cuts of the protocol: their order, their cost by hand, their floor."""

from dataclasses import replace

import pytest

from smtool.diffusability.inputs.subjects import PassSeconds
from smtool.diffusability.protocol import Protocol
from smtool.image_shape import ImageSize

WHOLE = ImageSize(256, 256)
FULL = Protocol.full(240, WHOLE)
SIZES = tuple(ImageSize(side, side) for side in (224, 192, 128))
OVERHEAD = 1.15


def passes(encode: float = 1.0, decode: float = 2.0) -> list[PassSeconds]:
    return [PassSeconds(encode, decode, WHOLE)]


def test_the_full_protocol_decodes_672_images_of_240():
    assert FULL.decodes == 15 * 32 + 9 * 16 + 3 * 16 == 672
    assert Protocol.full(6, WHOLE).decodes == 6 * (15 + 9 + 3)
    assert FULL.seconds(passes()) == pytest.approx(OVERHEAD * (240 + 672 * 2 + 32))


def test_time_for_everything_cuts_nothing():
    assert FULL.fitted(passes(), 1e4, SIZES) == FULL
    assert FULL.cuts_from(FULL) == []


def test_every_cut_follows_the_stated_order_as_the_time_shrinks():
    """From much time to little: each protocol is a prefix of the cuts, and no later cut appears before an earlier one."""
    seen = []
    for seconds in (3000, 1800, 1200, 1000, 800, 600, 400, 300, 200, 150, 120, 100, 80, 60, 50, 40, 30, 20, 10, 5, 1):
        now = FULL.fitted(passes(), seconds, SIZES)
        names = [name for name in ("removals", "bands", "decoded", "size", "shifts") if getattr(now, name) != getattr(FULL, name)]
        assert names == ["removals", "bands", "decoded", "size", "shifts"][:len(names)]
        if names[3:]:
            assert now.decoded in (4, 0)      # images are at their floor before the side is cut
        if names[4:]:
            assert now.size == SIZES[-1]      # the side is at its floor before a section is left out
        seen.append(now)
    assert {one.size for one in seen} == {WHOLE, *SIZES}
    decodes = [one.decodes * one.size.height**2 for one in seen]
    assert decodes == sorted(decodes, reverse=True)
    assert seen[-1] == Protocol(16, SIZES[-1], 0, (), 0, shifts=False)


@pytest.mark.parametrize("seconds", [2000, 700, 300, 130, 60])
def test_the_choice_fits_and_the_protocol_before_it_does_not(seconds):
    chosen = FULL.fitted(passes(), seconds, SIZES)
    assert chosen.seconds(passes()) <= seconds
    larger = [one for one in FULL._cuts(SIZES) if one.decodes * one.size.height**2 > chosen.decodes * chosen.size.height**2]
    for one in larger:
        assert one.decoding_seconds(passes()) + min(one.encoding_seconds(passes()), seconds / 2) > seconds


def test_sections_that_only_encode_keep_more_images():
    chosen = FULL.fitted(passes(), 300, SIZES)
    assert chosen.decoded == 4 < 16 < chosen.encoded
    assert FULL.fitted(passes(encode=0.01), 300, SIZES).encoded == 240


def test_without_a_decoder_only_the_number_of_encoded_images_is_cut():
    chosen = FULL.fitted(passes(encode=4.0, decode=0.0), 300, SIZES)
    assert replace(chosen, encoded=240) == FULL
    assert 16 < chosen.encoded < 240


def test_two_autoencoders_share_the_time():
    one, both = (FULL.fitted(passes() * number, 900, SIZES) for number in (1, 2))
    assert both.decodes < one.decodes


def test_what_was_cut_is_said_in_words():
    cut = Protocol(90, SIZES[1], 4, (0, 8, 12), 0, shifts=False)
    assert cut.cuts_from(FULL) == [
        "low-pass removals 15 -> 3 (n = 0, 8, 12)", "decoded images 32 -> 4", "size 256 -> 192 px (crops of the middle)",
        "encoded images 240 -> 90", "shift errors not measured", "band transfer not measured",
    ]  # fmt: skip
