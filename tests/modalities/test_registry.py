"""Modalities are found by themselves, made from settings, and added from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multimem_ray.config import DEFAULT_LIMITS
from multimem_ray.errors import ConfigError
from multimem_ray.modalities import registry
from multimem_ray.modalities.base import Modality
from multimem_ray.modalities.image import Image


@pytest.fixture(autouse=True)
def _known_as_before() -> Iterator[None]:
    before = dict(registry._KNOWN)
    yield
    registry._KNOWN.clear()
    registry._KNOWN.update(before)


def test_every_file_of_the_package_is_found() -> None:
    assert registry.names() == ("audio", "image", "text", "video")
    code = "from multimem_ray.modalities import registry; print(*registry.names())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == ["audio", "image", "text", "video"]


@pytest.mark.parametrize("name", registry.names())
def test_every_modality_says_what_it_is(name: str) -> None:
    modality = registry.create(name)
    assert modality.name == name
    assert modality.extensions
    assert all(e == e.lower() and not e.startswith(".") for e in modality.extensions)
    assert modality.spec.shape
    assert modality.settings.strength == 1
    for field, info in type(modality).Settings.model_fields.items():
        assert info.description, f"{name}.{field} has no description"


def test_settings_are_applied() -> None:
    assert registry.create("image", {"size": 64}).spec.shape == (3, 64, 64)
    assert registry.create("audio", {"sample_rate": 16000, "seconds": 2}).spec.shape == (32000,)
    assert registry.create("video", {"frames": 4, "size": 16}).spec.shape == (4, 3, 16, 16)
    assert registry.create("text", {"length": 8, "vocab": 99}).spec.vocab == 99


def test_an_unknown_modality_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'imgae'; did you mean 'image'\?.*data\.plugins"):
        registry.create("imgae")


def test_an_unknown_setting_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"modalities\.image\.sise.*'size'"):
        registry.create("image", {"sise": 3})


@pytest.mark.parametrize(
    ("name", "settings", "where"),
    [
        ("image", {"size": 0}, "modalities.image.size"),
        ("image", {"strength": -1}, "modalities.image.strength"),
        ("audio", {"seconds": "long"}, "modalities.audio.seconds"),
        ("text", {"vocab": 1}, "modalities.text.vocab"),
    ],
)
def test_a_wrong_value_is_named(name: str, settings: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError, match=where) as raised:
        registry.create(name, settings)
    assert "given" in str(raised.value)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'image' is defined by"):

        @registry.register
        class Other(Image):
            pass


def test_a_class_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="'name'"):

        @registry.register
        class Nameless(Modality):  # type: ignore[misc]
            extensions = ("x",)


def test_a_plugin_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"data\.plugins: 'no_such_module'.*PYTHONPATH"):
        registry.load_plugins(["no_such_module"])


def test_a_plugin_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("import module_that_is_missing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"broken_plugin.*module_that_is_missing"):
        registry.load_plugins(["broken_plugin"])


def test_every_extension_has_a_limit_of_its_kind() -> None:
    for name in ("audio", "image", "text", "video"):
        for extension in registry.get(name).extensions:
            assert DEFAULT_LIMITS.bytes_of(extension)[0] == f"{name}_bytes"
