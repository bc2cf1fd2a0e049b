import time

import torch

from smtool.pipelines.spectrum.passes import PassMeter, peak_memory_mb
from smtool.tokenizers import open_tokenizer


def test_every_pass_is_counted_and_no_number_changes():
    plain, metered = open_tokenizer("control:crop"), open_tokenizer("control:crop")
    meter = PassMeter(metered, "cpu")
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    latents = metered.encode(images).mode()
    decoded = [metered.decode(part) for part in latents.split(2)]
    spent = time.perf_counter() - start
    assert torch.equal(latents, plain.encode(images).mode())
    assert torch.equal(torch.cat(decoded[:1]), plain.decode(latents[:2]))
    assert (meter.encode.images, meter.decode.images) == (5, 5)
    assert 0 < meter.seconds <= spent


def test_the_peak_of_a_process_is_at_least_what_it_holds():
    held = torch.ones(64 * 2**20 // 4)
    assert peak_memory_mb("cpu")["process"] >= 64
    assert held.sum() > 0


def test_decoded_images_are_reported_within_a_block_only():
    codec = open_tokenizer("control:crop")
    meter, said = PassMeter(codec, "cpu"), []
    latents = torch.zeros(3, 3, 4, 4)
    codec.decode(latents)
    with meter.reporting(said.append):
        codec.decode(latents)
        codec.decode(latents[:1])
    codec.decode(latents)
    assert said == [3, 4]
