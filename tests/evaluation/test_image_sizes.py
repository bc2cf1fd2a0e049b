from smtool.evaluation.image_sizes import compared, described, one_size
from smtool.image_shape import ImageSize as size

MANY = {size(64, 64): 3, size(32, 32): 1200, size(64, 96): 5, size(1, 2): 1, size(8, 8): 2}


def test_the_three_commonest_sizes_are_named_and_the_others_counted():
    assert described(MANY) == "mixed sizes (1,200 of 32x32, 5 of 64x96, 3 of 64x64, 3 of 2 other sizes)"
    assert described({size(64, 96): 5, size(32, 32): 1}) == "mixed sizes (5 of 64x96, 1 of 32x32)"
    assert (described({size(64, 96): 5}), described({})) == ("64x96", "")


def test_one_size_is_that_of_all_images():
    assert (one_size({size(64, 96): 5}), one_size(MANY), one_size({})) == (size(64, 96), None, None)


def test_only_different_sizes_are_warned_of():
    assert compared({size(8, 8): 3}, {size(8, 8): 9}, resized=True) == ""
    assert compared({size(8, 8): 3}, {}, resized=True) == ""
    assert compared({size(8, 8): 3}, {size(4, 8): 9}, resized=True) == (
        "images of 8x8, reference of 4x8 (height x width in px): each image is resized by itself"
    )
    assert compared({size(8, 8): 3, size(4, 4): 1}, {}, resized=False) == (
        "images of mixed sizes (3 of 8x8, 1 of 4x4) (height x width in px): "
        "images are not resized, so their sizes change these features"
    )
