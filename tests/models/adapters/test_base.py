"""What an adapter says before it is built."""

from __future__ import annotations

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.fit import Fit
from multimem_ray.modalities.image import Image, ImageSettings
from multimem_ray.models.adapters import adapter
from multimem_ray.models.adapters.base import (
    FINE_TUNING,
    Description,
    compare_setting,
    require_setting,
)


def test_a_description_is_defaults_for_three_sections() -> None:
    description = Description(
        8, {"text": {"length": 4}, "image": {}}, model={"logit_scale_max": 50}
    )
    defaults = description.defaults()
    assert defaults["model"] == {"dim": 8, "modalities": ["image", "text"], "logit_scale_max": 50}
    assert defaults["modalities"] == {"text": {"length": 4}, "image": {}}
    assert defaults["training"] == dict(FINE_TUNING)


def test_a_setting_that_does_not_fit_is_named_with_the_one_that_does() -> None:
    require_setting("image", "size", 32, 32, "it")
    with pytest.raises(ConfigError, match=r"modalities\.image\.size = 16: it takes 32"):
        require_setting("image", "size", 16, 32, "it")


def test_an_input_that_is_made_otherwise_is_said(caplog: pytest.LogCaptureFixture) -> None:
    image = Image(ImageSettings(size=32, fit=Fit(kernel="bilinear")))
    compare_setting(image, "fit", {"kernel": "bilinear"}, "it")
    compare_setting(image, "fit", None, "a model from scratch")
    assert not caplog.text
    compare_setting(image, "fit", {"resize": "squash", "kernel": "bicubic"}, "it")
    assert "modalities.image.fit = {'kernel': 'bilinear'}: it takes {'resize': 'squash'}" in (
        caplog.text
    )


def test_an_adapter_names_something() -> None:
    with pytest.raises(ConfigError, match="names nothing after the colon"):
        adapter("plugin:")
    assert adapter("plugin:a:b", ["pickle"]).allow == ("pickle",)
