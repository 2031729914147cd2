"""What follows for the configuration from the embeddings that are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.embeddings.recorded import folder_of, load_manifest, recorded_defaults
from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage


@pytest.mark.parametrize(
    ("item", "folder"),
    [
        ({"files": "/kept/model=000"}, "/kept/model=000"),
        ({"files": "/kept/a/*.parquet"}, "/kept/a"),
        ({"files": ["/kept/b/x.parquet"]}, "/kept/b"),
        ({"arrays": {}, "keys": "keys.txt"}, "."),
    ],
)
def test_the_folder_of_a_set(item: dict[str, object], folder: str) -> None:
    assert folder_of(item) == folder


def test_models_are_given_and_say_themselves_what_they_saw() -> None:
    given = {"models": ["/kept/a", {"files": "/kept/b", "members": "all"}]}
    assert recorded_defaults(given, {})["design"] == {
        "kind": "given",
        "given": [
            {"checkpoint": "/kept/a", "members": "recorded"},
            {"checkpoint": "/kept/b", "members": "all"},
        ],
    }
    rule = {"design": {"kind": "candidate"}}
    assert recorded_defaults({"models": ["/a", "/b"]}, rule) == {"design": {"models": 2}}
    with pytest.raises(ConfigError, match="keep one of the two"):
        recorded_defaults(given, rule)


def test_a_run_without_complete_embeddings_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finish `multimem embed`"):
        load_manifest(str(tmp_path), Storage())
