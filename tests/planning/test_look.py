"""What is in some shards, counted before there is a configuration."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from multimem_ray.cli import app
from multimem_ray.distributed.executor import LOCAL
from multimem_ray.distributed.on_ray import RayExecutor
from multimem_ray.planning.look import look_through
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import Storage
from tests.small import QUIET, members, write_shards

STORAGE = Storage()


@pytest.fixture
def shards(tmp_path: Path) -> str:
    folder = write_shards(tmp_path / "in", samples=20)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (7, 5)).save(turned, "JPEG", exif=exif)
    with create_shard(str(folder / "more.tar"), STORAGE) as shard:
        shard.write("b", {"jpg": turned.getvalue(), "txt": "ä".encode(), "npy": b"123"})
        shard.write("a", {**members(3), "png": b"no picture"})
    return str(folder)


def test_everything_that_lies_in_the_shards_is_counted(shards: str) -> None:
    found = look_through(shards, STORAGE, QUIET).as_json()
    assert (found["named"], found["shards"], found["samples"]) == (3, 3, 22)
    assert found["unsorted_shards"] == 1
    assert found["members"]["npy"] == {
        "count": 1, "bytes": 3, "smallest": 3, "largest": 3, "known": False
    }  # fmt: skip
    assert found["members"]["png"]["count"] == 17
    assert found["together"] == {"audio+image+text": 17, "audio+text": 4, "image+text": 1}
    assert found["contents"]["audio"]["rate"] == {"8000 Hz": 21}
    assert found["contents"]["image"]["orientation"] == {"1": 16, "6": 1}
    assert found["contents"]["image"]["width"] == [7, 24]
    assert found["contents"]["text"]["encoding"] == {"ASCII": 21, "UTF-8": 1}
    assert found["failures"]["image: undecodable"]["count"] == 1


def test_packed_members_are_counted_as_what_they_hold(tmp_path: Path) -> None:
    with create_shard(str(tmp_path / "p.tar"), STORAGE) as shard:
        own = members(1)
        packed = {f"{name}.gz": gzip.compress(own[name]) for name in ("txt", "json")}
        shard.write("a", {"png": own["png"], **packed})
    found = look_through(str(tmp_path / "p.tar"), STORAGE, QUIET).as_json()
    assert found["together"] == {"image+text": 1}
    assert found["members"]["txt.gz"]["known"] is True
    assert found["contents"]["text"]["encoding"] == {"ASCII": 1}


def test_bounds_bound_what_is_read(shards: str) -> None:
    found = look_through(shards, STORAGE, QUIET, samples=2, shards=2).as_json()
    assert (found["named"], found["shards"], found["samples"]) == (3, 2, 4)
    assert found["looked_at_in_part"] == 2


def test_a_cluster_counts_the_same(shards: str, ray_session: object) -> None:
    here, away = (
        look_through(shards, STORAGE, QUIET, executor=executor)
        for executor in (LOCAL, RayExecutor())
    )
    assert away.as_json() == here.as_json()


def test_the_command_tells_it_to_people_and_programs(shards: str) -> None:
    told = CliRunner().invoke(app, ["inspect", shards])
    assert told.exit_code == 0
    assert "members     .npy: 1, 3 bytes on average, of no modality" in told.stdout
    assert "unreadable  image: undecodable: 1" in told.stdout
    found = CliRunner().invoke(app, ["inspect", shards, "--json", "--samples", "1", "--local"])
    assert json.loads(found.stdout)["samples"] == 3
