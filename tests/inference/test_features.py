import torch

from smtool.features.load import load_extractor
from smtool.inference.features import pooled_features


def test_features_of_parts_are_those_of_all_images():
    images = torch.randint(256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    extractor = load_extractor("random")
    found = pooled_features(extractor, images.split(2))
    assert found.shape == (5, extractor.dim)
    assert not found.requires_grad
    torch.testing.assert_close(found, extractor(images), rtol=1e-4, atol=1e-5)
