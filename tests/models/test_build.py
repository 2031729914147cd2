"""From a section to a model: seeds, initial weights, and what is not trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from multimem_ray.config import ModelConfig
from multimem_ray.errors import ConfigError
from multimem_ray.modalities import registry
from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel

SMALL = {"image": {"width": 4}, "text": {"width": 8}}


def built(seed: int = 0, weights: bool = True, **settings: object) -> ContrastiveModel:
    config = ModelConfig.model_validate({"dim": 8, "towers": SMALL, **settings})
    modalities = [registry.create("image"), registry.create("text")]
    return build_model(config, modalities, seed, weights=weights)


def equal(a: ContrastiveModel, b: ContrastiveModel) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_seed_gives_one_model_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = built(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert equal(one, built(3))
    assert not equal(one, built(4))
    assert one.training


def test_initial_weights_are_loaded_where_they_are_asked_for(tmp_path: Path) -> None:
    first = built(1)
    init = tmp_path / "model.safetensors"
    save_file(first.state_dict(), init)
    assert equal(built(2, init=str(init)), first)
    assert equal(built(2, weights=False, init=str(init)), built(2))


@pytest.mark.parametrize(
    ("freeze", "prefixes"),
    [(["image"], ("towers.image.",)), (["towers.t*", "log_scales*"], ("towers.text.", "log_scal"))],
)
def test_modalities_and_patterns_are_frozen(freeze: list[str], prefixes: tuple[str, ...]) -> None:
    named = dict(built(freeze=freeze).named_parameters())
    frozen = {name for name, parameter in named.items() if not parameter.requires_grad}
    assert frozen == {name for name in named if name.startswith(prefixes)}
    assert frozen


def test_a_pattern_that_fits_nothing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze: 'txt' .* did you mean 'text'"):
        built(freeze=["txt"])
