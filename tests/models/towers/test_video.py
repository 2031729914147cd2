"""Clips: a network over space and time, or a picture's network on every frame."""

from __future__ import annotations

import torch

from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import build_tower

CLIP = Spec("frames", (4, 3, 16, 16), "uint8")


def test_the_mean_over_frames_is_that_of_their_directions() -> None:
    torch.manual_seed(0)
    frame = {"kind": "image", "width": 4, "depth": 2}
    tower = build_tower("video", CLIP, 8, {"kind": "framewise", "frame": frame}).eval()
    clips = torch.randint(0, 255, (2, *CLIP.shape), dtype=torch.uint8)
    each = tower.frame(tower.frame.prepare(clips.flatten(0, 1)))
    expected = torch.nn.functional.normalize(each, dim=-1).view(2, 4, 8).mean(1)
    torch.testing.assert_close(tower(tower.prepare(clips)), expected)


def test_torchvision_wants_channels_first() -> None:
    torch.manual_seed(0)
    tower = build_tower("video", CLIP, 8, {"kind": "torchvision_video", "arch": "r3d_18"}).eval()
    features = tower.prepare(torch.zeros(2, *CLIP.shape, dtype=torch.uint8))
    assert features.shape == (2, 3, 4, 16, 16)
    with torch.no_grad():
        assert tower(features).shape == (2, 8)
