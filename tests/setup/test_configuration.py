"""Configuration: defaults, presets, refusals that help, and what a fingerprint covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.models.presets import preset_defaults, preset_names
from multimem_ray.setup import load, resolve

MINIMAL = {"output": "out", "data": {"shards": "*.tar"}}


def test_only_output_and_shards_are_required() -> None:
    config = resolve(MINIMAL)
    assert config.model.preset == "tiny"
    assert config.design.models == 4
    for missing, name in (({"data": {"shards": "x"}}, "output"), ({"output": "x"}, "data")):
        with pytest.raises(ConfigError, match=f"{name}: required"):
            resolve(missing)


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'training\.epoch'; did you mean 'epochs'"):
        resolve({**MINIMAL, "training": {"epoch": 3}})
    with pytest.raises(ConfigError, match=r"'resources\.score\.actor'; did you mean 'actors'"):
        resolve({**MINIMAL, "resources": {"score": {"actor": 3}}})
    with pytest.raises(ConfigError, match="'traning'; did you mean 'training'"):
        resolve({**MINIMAL, "traning": {}})


def test_a_wrong_value_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs: .*greater than or equal to 1.*0"):
        resolve({**MINIMAL, "training": {"epochs": 0}})
    with pytest.raises(ConfigError, match=r"data\.shards: name at least one shard"):
        resolve({"output": "x", "data": {"shards": ""}})


def test_preset_defaults_give_way_to_the_user() -> None:
    tiny = preset_defaults("tiny")
    config = resolve({**MINIMAL, "training": {"epochs": 7}})
    assert config.training.epochs == 7
    assert config.training.lr == tiny["training"]["lr"]
    with pytest.raises(ConfigError, match="no preset 'tinny'; did you mean 'tiny'"):
        resolve({**MINIMAL, "model": {"preset": "tinny"}})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves(name: str) -> None:
    assert resolve({**MINIMAL, "model": {"preset": name}}).model.preset == name


def test_overrides_are_yaml_and_dotted(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("output: a\ndata: {shards: x}\n")
    sets = ["training.epochs=3", "resources.score.actors=[2, 8]", "output=b", "data.label=json.l"]
    config = load(path, sets)
    assert config.training.epochs == 3
    assert config.resources.score.actors == (2, 8)
    assert (config.output, config.data.label) == ("b", "json.l")
    with pytest.raises(ConfigError, match="write key=value"):
        load(path, ["training.epochs"])
    with pytest.raises(ConfigError, match="output is a value, not a section"):
        load(path, ["output.x=1"])


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(bad)
    bad.write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        load(bad)


def test_another_kind_of_tower_drops_the_options_of_the_presets() -> None:
    towers = {"video": {"kind": "framewise", "frame": {"width": 4}}}
    model = {"preset": "avt-clip", "towers": towers}
    config = resolve({**MINIMAL, "model": model})
    assert config.model.towers["video"] == towers["video"]
    assert config.model.towers["audio"] == {"kind": "esresnext"}
    kept = resolve(
        {**MINIMAL, "model": {"preset": "avt-clip", "towers": {"video": {"arch": "s3d"}}}}
    )
    assert kept.model.towers["video"] == {"kind": "torchvision_video", "arch": "s3d"}


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (
            "storage.endpoint_url",
            {"storage": {"endpoint_url": "https://me:s3cret@minio.test:9000"}},
        ),
        ("data.shards", {"data": {"shards": ["a.tar", "s3://me:s3cret@bucket/*.tar"]}}),
        ("output", {"output": "s3://s3cret@bucket/runs"}),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(key: str, raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{key} .*AWS_ACCESS_KEY_ID") as caught:
        resolve({"output": "runs/a", "data": {"shards": "x.tar"}} | raw)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_comments_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# output: runs/first\n")
    sets = ["data.shards=a", "output=o"]
    assert load(tmp_path / "run.yaml", sets) == load(None, sets)
