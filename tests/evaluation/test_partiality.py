"""Judges that a checkpoint learned from: as stated in the checkpoint, or for older ones as in the recipe."""

import pytest

from smtool.evaluation.partiality import lessons_of_autoencoder, lessons_of_transformer, partial_judges


@pytest.mark.parametrize(
    ("teacher", "judge", "partial"),
    [
        ("squeezenet", "squeezenet", True),
        ("squeezenet", "random", False),
        ("dinov2-s", "dinov2", True),      # distilled from one network
        ("dinov2-l", "timm:vit_base_patch14_dinov2.lvd142m", True),
        ("timm:resnet18.a1_in1k", "timm_resnet18.a1_in1k", True),
        ("timm:resnet18.a1_in1k", "timm_resnet50.a1_in1k", False),
    ],
)
@pytest.mark.parametrize("stated", [True, False])
def test_a_teacher_is_no_impartial_judge(teacher, judge, partial, stated):
    metadata = {"recipe": {"alignment": {"teacher": teacher}}} | ({"learned_from": [teacher]} if stated else {})
    found = partial_judges({judge: judge}, lessons_of_transformer(metadata))
    assert found == ({judge: f"{teacher} was this transformer's teacher: rank by another network"} if partial else {})


def test_a_network_of_the_autoencoders_loss_is_no_impartial_judge():
    judges = {"squeezenet": "squeezenet", "random": "random", "dinov2": "dinov2"}
    found = partial_judges(judges, lessons_of_transformer({"autoencoder": {"learned_from": ["squeezenet", "dinov2-l"]}}))
    assert set(found) == {"squeezenet", "dinov2"}
    assert found["dinov2"] == "dinov2-l was in the autoencoder's loss: rank by another network"
    assert partial_judges(judges, lessons_of_transformer({"recipe": {"alignment": None}})) == {}
    assert partial_judges(judges, lessons_of_transformer({})) == {}


@pytest.mark.parametrize(("net", "trunk"), [("squeeze", "squeezenet"), ("vgg", "vgg16"), ("alex", "alexnet")])
def test_an_older_autoencoder_is_judged_by_its_recipe(net, trunk):
    judges = {f"lpips_{net}": trunk, f"fd_{trunk}": trunk, f"fd_timm_{trunk}": f"timm_{trunk}", "fd_random": "random"}
    old = partial_judges(judges, lessons_of_autoencoder({"recipe": {"perceptual": {"net": net}}}))
    assert old == partial_judges(judges, lessons_of_autoencoder({"learned_from": [trunk]}))
    assert set(old) == set(judges) - {"fd_random"}
    assert partial_judges(judges, lessons_of_autoencoder({"recipe": {"perceptual": None}})) == {}


def test_the_statement_in_a_checkpoint_takes_precedence_over_its_recipe():
    metadata = {"learned_from": [], "recipe": {"perceptual": {"net": "vgg"}}}
    assert partial_judges({"lpips_vgg": "vgg16"}, lessons_of_autoencoder(metadata)) == {}
