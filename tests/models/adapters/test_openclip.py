"""Models of open_clip, from scratch and from files."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.models.adapters import adapter
from multimem_ray.setup import resolve
from tests.models.adapters.ways import built


def test_settings_that_do_not_fit_name_their_key(tiny_arch: str, tmp_path: Path) -> None:
    model = f"open_clip:{tiny_arch}"
    for section, said in (
        ({"modalities": {"image": {"size": 64}}}, r"modalities\.image\.size = 64: .* takes 32"),
        ({"modalities": {"text": {"length": 77}}}, r"modalities\.text\.length = 77: .* takes 16"),
    ):
        config = resolve({"output": "o", "data": {"shards": "s"}, "model": model, **section})
        with pytest.raises(ConfigError, match=said):
            built(config)
    config = resolve(
        {"output": "o", "data": {"shards": "s"}, "model": {"adapter": model, "dim": 8}}
    )
    with pytest.raises(ConfigError, match=r"model\.dim = 8: .* embeds in 24"):
        built(config)
    config = resolve(
        {
            "output": "o",
            "data": {"shards": "s"},
            "model": {"adapter": model, "modalities": ["audio", "text"]},
        }
    )
    with pytest.raises(ConfigError, match=r"has no tower for audio; .*model\.towers\.audio"):
        built(config)


def test_a_pickle_is_not_run(tiny_arch: str, tmp_path: Path) -> None:
    bomb = tmp_path / "weights.pt"
    bomb.write_bytes(pickle.dumps(_Bomb(str(tmp_path / "ran"))))
    raw = {"output": "o", "data": {"shards": "s"}, "model": f"open_clip:{tiny_arch}/{bomb}"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError, match="not plain tensors"):
            resolve(raw)
    assert not (tmp_path / "ran").exists()


class _Bomb:
    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path(self.place),)


def test_a_models_own_settings_can_be_overridden(tiny_arch: str) -> None:
    raw = {"output": "o", "data": {"shards": "s"}, "model": f"open_clip:{tiny_arch}"}
    config = resolve({**raw, "modalities": {"text": {"dropout": 0.1}}, "training": {"epochs": 3}})
    assert config.modalities["text"] == {"tokenizer": "clip", "length": 16, "dropout": 0.1}
    assert config.training.epochs == 3
    assert config.training.weight_decay == 0.2, "from scratch: CLIP's recipe"
    assert config.model.preset is None
    assert adapter(f"open_clip:{tiny_arch}").describe().dim == 24
