"""An architecture of open_clip that embeds at once."""

from __future__ import annotations

import json

import open_clip
import pytest

from tests.models.adapters.ways import TINY_ARCH


@pytest.fixture(scope="module")
def tiny_arch(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("arch")
    (folder / "multimem-test.json").write_text(json.dumps(TINY_ARCH))
    open_clip.add_model_config(folder / "multimem-test.json")
    return "multimem-test"
