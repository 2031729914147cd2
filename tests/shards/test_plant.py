from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError, ShardNotFoundError
from multimem_ray.sample import Sample
from multimem_ray.shards.plant import PlantReport, plant
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from tests.s3 import S3Server
from tests.shards.tars import archive

FIELDS = {"image": "jpg;jpeg;png", "audio": "flac", "text": "txt"}
Truth = list[dict[str, Any]]


def content(i: int, label: str | None = None) -> dict[str, bytes]:
    """A sample whose every member tells whose it is."""
    meta = {"class_label": label or f"class {i % 4}", "deep": {"caption": f"deep {i}"}, "n": i}
    members = {
        "jpg" if i % 2 else "png": b"image %d" % i,
        "flac": b"audio %d" % i,
        "txt": b"text %d" % i,
        "json": json.dumps(meta).encode(),
    }
    if i % 5 == 0:
        del members["flac"]
    return members


def write(folder: Path | str, samples: dict[str, dict[str, bytes]], per_shard: int = 50) -> None:
    with ShardWriter(str(folder), max_samples=per_shard) as writer:
        for key, members in samples.items():
            writer.write(key, members)


def read(folder: str, storage: Storage | None = None) -> dict[tuple[str, str], dict[str, bytes]]:
    storage = storage or Storage()
    return {
        (storage.name(item.shard), item.key): dict(item.members)
        for info in storage.list(folder)
        if info.url.endswith(".tar")
        for item in read_shard(info.url, storage)
        if isinstance(item, Sample)
    }


def truth_of(report: PlantReport, storage: Storage | None = None) -> Truth:
    with (storage or Storage()).open(report.truth) as stream:
        rows: Truth = pq.read_table(stream).to_pylist()
    return rows


@pytest.fixture
def samples() -> dict[str, dict[str, bytes]]:
    return {f"s/k{i:03}": content(i) for i in range(200)}


@pytest.fixture
def source(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> str:
    write(tmp_path / "in", samples)
    return str(tmp_path / "in")


def check(
    before: dict[Any, dict[str, bytes]], after: dict[Any, dict[str, bytes]], truth: Truth
) -> None:
    """The copy differs from the original in exactly what the truth says."""
    by_key = {key: members for (_, key), members in before.items()}
    assert {(row["shard"], row["key"]) for row in truth} == set(after) == set(before)
    assert len(truth) == len(after)
    kinds = {"image": {"jpg", "png"}, "audio": {"flac"}, "text": {"txt"}}
    for row in truth:
        place = (row["shard"], row["key"])
        if not row["planted"]:
            assert after[place] == before[place]
            assert row["modality"] is row["donor_key"] is row["donor_label"] is None
            continue
        changed = kinds[row["modality"]]
        donor = by_key[row["donor_key"]]
        kept = {e: d for e, d in before[place].items() if e not in changed}
        given = {e: d for e, d in donor.items() if e in changed}
        assert given
        assert after[place] == kept | given
        assert after[place] != before[place]


def test_a_known_fraction_gets_one_modality_of_another_label(source: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = plant(
        source,
        str(tmp_path / "out"),
        fraction=0.1,
        fields=FIELDS,
        label="json.class_label",
        advance=lambda done, total: steps.append((done, total)),
    )
    truth = truth_of(report)
    check(read(source), read(str(tmp_path / "out")), truth)
    planted = [row for row in truth if row["planted"]]
    assert len(planted) == report.planted == report.wanted == 20
    assert report.samples == len(truth) == 200
    assert not report.failures
    assert all(row["label"] != row["donor_label"] for row in planted)
    assert all(row["label"] and row["donor_label"] for row in planted)
    assert set(report.by_modality) == {"image", "audio", "text"}
    assert sum(report.by_modality.values()) == 20
    assert steps == [(i, 8) for i in range(1, 9)]
    assert len({row["shard"] for row in planted}) == len(report.shards) == 4


def test_same_seed_same_copy_other_seed_another(source: str, tmp_path: Path) -> None:
    def planted(name: str, seed: int) -> tuple[dict[Any, dict[str, bytes]], Truth]:
        report = plant(source, str(tmp_path / name), fraction=0.1, fields=FIELDS, seed=seed)
        return read(str(tmp_path / name)), truth_of(report)

    assert planted("a", 0) == planted("b", 0)
    other = planted("c", 1)
    check(read(source), *other)
    assert {r["key"] for r in other[1] if r["planted"]} != {
        r["key"] for r in planted("a", 0)[1] if r["planted"]
    }


def test_one_modality_and_samples_without_it(source: str, tmp_path: Path) -> None:
    report = plant(source, str(tmp_path / "out"), fraction=1, fields=FIELDS, modality="audio")
    truth = truth_of(report)
    check(read(source), read(str(tmp_path / "out")), truth)
    assert (report.wanted, report.planted) == (200, 160)
    assert {row["modality"] for row in truth if row["planted"]} == {"audio"}


def test_json_field_alone_is_changed(source: str, tmp_path: Path) -> None:
    fields = {"image": "jpg;png", "text": "json.deep.caption"}
    out = str(tmp_path / "out")
    report = plant(
        source, out, fraction=0.2, fields=fields, modality="text", label="json.class_label"
    )
    before, after = read(source), read(out)
    planted = [row for row in truth_of(report) if row["planted"]]
    assert len(planted) == 40
    for row in planted:
        place = (row["shard"], row["key"])
        old, new = json.loads(before[place]["json"]), json.loads(after[place]["json"])
        assert new["deep"]["caption"] == f"deep {int(row['donor_key'][-3:])}"
        new["deep"] = old["deep"]
        assert new == old
        assert after[place] | {"json": b""} == before[place] | {"json": b""}


def test_shards_of_one_class_each_get_donors_from_others(tmp_path: Path) -> None:
    write(tmp_path / "in", {f"k{i:03}": content(i, f"class {i // 20}") for i in range(100)}, 20)
    report = plant(
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        fraction=0.5,
        fields=FIELDS,
        label="json.class_label",
    )
    truth = truth_of(report)
    check(read(str(tmp_path / "in")), read(str(tmp_path / "out")), truth)
    planted = [row for row in truth if row["planted"]]
    assert len(planted) == 50
    assert all(row["label"] != row["donor_label"] for row in planted)


def test_one_label_everywhere_falls_back_to_other_content(tmp_path: Path) -> None:
    samples = {f"k{i:02}": content(i, "only") for i in range(20)}
    samples["k03"]["txt"] = samples["k04"]["txt"]
    write(tmp_path / "in", samples)
    report = plant(
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        fraction=1,
        fields=FIELDS,
        modality="text",
        label="json.class_label",
    )
    assert report.planted == 20
    check(read(str(tmp_path / "in")), read(str(tmp_path / "out")), truth_of(report))


def test_where_no_other_content_is_nothing_is_planted(tmp_path: Path) -> None:
    write(tmp_path / "in", {f"k{i}": {"jpg": b"same", "txt": b"same"} for i in range(6)}, 2)
    fields = {"image": "jpg", "text": "txt"}
    report = plant(str(tmp_path / "in"), str(tmp_path / "out"), fraction=0.5, fields=fields)
    assert (report.wanted, report.planted) == (3, 0)
    assert read(str(tmp_path / "in")) == read(str(tmp_path / "out"))


def test_the_same_keys_in_two_shards_are_counted_exactly(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name, {f"k{i}": {"jpg": b"%d" % i, "txt": b"%d" % i} for i in range(11)})
    spec = "::".join(str(tmp_path / name) for name in "abc")
    fields = {"image": "jpg", "text": "txt"}
    for number, fraction in enumerate((0.1, 0.2, 0.3, 0.4)):
        report = plant(spec, str(tmp_path / f"out{number}"), fraction=fraction, fields=fields)
        assert report.planted == report.wanted == round(fraction * 33)
        truth = truth_of(report)
        assert len({(row["shard"], row["key"]) for row in truth}) == 33


def test_unusable_samples_are_copied_and_damage_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    members = [
        ("a.json", b"{"), ("a.jpg", b"1"), ("a.txt", b"1"),
        ("b.json", b"{}"), ("b.jpg", b"2"), ("b.txt", b"2"),
        ("c.json", b"{}"), ("c.jpg", b"3"), ("c.txt", b""),
        ("d.jpg", b"4"),
        ("e.json", b"[]"), ("e.jpg", b"5"), ("e.txt", b"5"),
        ("f.jpg", b"6"), ("f.txt", b"6"),
    ]  # fmt: skip
    folder.mkdir()
    (folder / "x.tar").write_bytes(archive(members)[:-10240] + b"garbage" * 200)
    (folder / "y.tar").write_bytes(b"")
    fields = {"image": "jpg", "text": "txt;json.caption"}
    report = plant(str(folder), str(tmp_path / "out"), fraction=1, fields=fields)
    truth = truth_of(report)
    after, before = read(str(tmp_path / "out")), read(str(folder))
    assert set(after) == set(before)
    assert [Path(url).name for url in report.shards] == ["x.tar"]
    assert not (tmp_path / "out/y.tar").exists()
    assert {row["key"] for row in truth if not row["planted"]} >= {"c", "d"}
    assert after["x.tar", "d"] == before["x.tar", "d"]
    assert {(Path(f.shard).name, f.error) for f in report.failures} >= {("y.tar", "not_a_tar")}
    assert any(Path(f.shard).name == "x.tar" for f in report.failures)


def test_on_s3(s3_server: S3Server, source: str) -> None:
    storage, root = s3_server.storage, s3_server.bucket()
    report = plant(source, f"{root}/out", fraction=0.1, fields=FIELDS, storage=storage)
    check(read(source), read(f"{root}/out", storage), truth_of(report, storage))


def test_wrong_use_is_refused(source: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for fraction in (0.0, -1.0, 1.5):
        with pytest.raises(ConfigError, match="fraction"):
            plant(source, out, fraction=fraction, fields=FIELDS)
    with pytest.raises(ConfigError, match="video"):
        plant(source, out, fraction=0.1, fields=FIELDS, modality="video")
    with pytest.raises(ConfigError, match="two"):
        plant(source, out, fraction=0.1, fields={"image": "jpg"})
    with pytest.raises(ConfigError, match="elsewhere"):
        plant(source, f"{source}/../in", fraction=0.1, fields=FIELDS)
    with pytest.raises(ConfigError, match=r"json\.none"):
        plant(source, out, fraction=0.1, fields=FIELDS, label="json.none")
    with pytest.raises(ConfigError, match="no sample has two"):
        plant(source, out, fraction=0.1, fields={"image": "webp", "text": "caption"})
    with pytest.raises(ShardNotFoundError):
        plant(str(tmp_path / "nothing"), out, fraction=0.1, fields=FIELDS)
    assert not Path(out).exists()


@pytest.mark.data
def test_real_shards(shared_data: Callable[[str], list[Path]], tmp_path: Path) -> None:
    shards = [str(path) for path in shared_data("fsdd_mnist_ait")]
    fields = {"image": "png", "audio": "flac", "text": "txt"}
    report = plant(
        shards, str(tmp_path), fraction=0.05, fields=fields, label="json.class_label", modality=None
    )
    assert (report.samples, report.planted) == (1500, 75)
    truth = truth_of(report)
    assert all(row["label"] != row["donor_label"] for row in truth if row["planted"])
    before = {
        (Path(item.shard).name, item.key): dict(item.members)
        for shard in shards
        for item in read_shard(shard, Storage())
        if isinstance(item, Sample)
    }
    after = read(str(tmp_path))
    changed = {place for place in before if before[place] != after[place]}
    assert changed == {(row["shard"], row["key"]) for row in truth if row["planted"]}


def test_a_video_is_exchanged_with_its_sound(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "in")) as writer:
        for number in range(20):
            name = str(number).encode()
            writer.write(f"s{number:02d}", {"mp4": b"film " + name, "txt": b"text " + name})
    fields = {"audio": "flac;mp4", "text": "txt", "video": "mp4"}
    report = plant(str(tmp_path / "in"), str(tmp_path / "out"), fraction=0.5, fields=fields)
    assert report.planted == 10
    assert set(report.by_modality) == {"text", "video"}
