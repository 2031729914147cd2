"""Every small preset through the whole product, on real recordings."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.audit import audit
from multimem_ray.progress import Progress
from multimem_ray.sample import Sample
from multimem_ray.setup import apply_overrides, resolve
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]

CAPTIONS = "data.fields={image: jpg, text: json.captions}"
PRESETS = [
    ("audioclip-tiny", "esc10_ait", ("audio", "image", "text"), ()),
    ("avt-clip-tiny", "grid_s1_avt", ("audio", "text", "video"), ()),
    ("avit-clip-tiny", "grid_s1_avt", ("audio", "image", "text", "video"), ()),
    ("clip-tiny", "coco_cc_it", ("image", "text"), (CAPTIONS,)),
    # Without the FLAC members: the sound comes from the video.
    ("avt-clip-tiny", "grid_s1_avt", ("audio", "text", "video"), ("data.fields=FROM_VIDEO",)),
]


@pytest.mark.parametrize(("preset", "data", "modalities", "sets"), PRESETS)
def test_a_tiny_preset_audits_real_data(
    preset: str,
    data: str,
    modalities: tuple[str, ...],
    sets: tuple[str, ...],
    shared_data: Callable[[str], list[Path]],
    tmp_path: Path,
    ray_session: Any,
) -> None:
    shards = shared_data(data)[:2]
    raw = {
        "output": str(tmp_path / "out"),
        "data": {"shards": [str(shard) for shard in shards]},
        "design": {"models": 2},
        "model": preset,
        "training": {"epochs": 1},
        "scoring": {"views": 2},
        "resources": {"cache_dir": str(tmp_path / "cache")},
        "report": {"top": 4},
    }
    sets = tuple(s.replace("FROM_VIDEO", "{audio: mp4, text: txt, video: mp4}") for s in sets)
    config = resolve(apply_overrides(raw, sets))
    audit(config, Progress(Console(file=io.StringIO())))
    output = Path(config.output)
    rows = [r for p in output.glob("scores/*/*.parquet") for r in pq.read_table(p).to_pylist()]
    held_out = json.loads((output / "held_out" / "held_out.json").read_text())
    samples = [
        item
        for shard in shards
        for item in read_shard(str(shard), Storage())
        if isinstance(item, Sample)
    ]
    assert len(rows) + held_out["keys_seen"] == len(samples)
    assert all(np.isfinite(row["multimem"]) for row in rows)
    assert {name for row in rows for name in row["modalities"]} == set(modalities)
    lacking = Counter(len(row["modalities"]) < len(modalities) for row in rows)[True]
    pictures = sum("jpg" in sample.members or "png" in sample.members for sample in samples)
    if data == "esc10_ait":
        assert len(samples) - pictures == 160
        assert 130 <= lacking <= 160
    else:
        assert lacking == 0
    assert (output / "report.html").stat().st_size > 10_000
