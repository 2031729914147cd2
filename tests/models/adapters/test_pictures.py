"""What of an image processor cannot be done alike is refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.models.adapters.pictures import pictures_of

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop_size": 200}, r"cuts out \(200, 200\) \(crop_size\), and the model takes 224"),
        ({"do_center_crop": False}, r"without a crop .* squares of 224"),
        ({"do_pad": True}, "pads"),
        ({"resample": 0}, r"filter 0 \(resample\); known are 1 = lanczos"),
        ({"resample": "bicubic"}, "has a setting that is none .*'bicubic'.*correct its prepro"),
        ({"rescale_factor": 0}, "has a setting that is none .*division by zero"),
        ({"image_std": [0.2, 0, 0.2]}, "has a setting that is none"),
        ({"size": {"longest_edge": 224}}, "resizes to .*longest_edge"),
        ({"size": {"height": 224, "width": 200}}, "known are shortest_edge and squares"),
        (
            {"image_processor_type": "ViTImageProcessor"},
            "made by ViTImageProcessor; known are CLIP",
        ),
    ],
)
def test_what_is_not_known_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    content = {"image_processor_type": "CLIPImageProcessor"} | settings
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=said) as raised:
        pictures_of("hf:theirs", str(tmp_path), "clip", 224)
    assert "\n" not in str(raised.value)


def test_code_of_others_is_not_run(tmp_path: Path) -> None:
    content = {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be read"):
        pictures_of("hf:theirs", str(tmp_path), "clip", 224)
    assert not (tmp_path / "ran").exists()


def test_settings_as_older_versions_wrote_them(tmp_path: Path) -> None:
    content = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 224,
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    made = pictures_of("hf:theirs", str(tmp_path), "clip", 224)
    assert made.fit == {"resize": "shortest", "kernel": "bicubic", "half": "down"}
    assert made.mean == [0.1, 0.2, 0.3]
    assert made.scale == pytest.approx(255)
