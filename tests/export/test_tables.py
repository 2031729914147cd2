"""Tables of scored rows, as others read them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.export import tables
from multimem_ray.export.tables import Asked, Kind, write_table
from multimem_ray.results.scores import open_scores
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run
from tests.small import QUIET

HOSTILE = 'a "quoted", label\nof =two+lines; <script>'


@pytest.fixture
def table(tmp_path: Path) -> ScoreTable:
    return ScoreTable(fake_run(tmp_path, labels=[HOSTILE, "β"], undefined=2).output, Storage())


def read(path: str, kind: Kind) -> pd.DataFrame:
    if kind == "csv":
        return pd.read_csv(path, dtype={"key": str})
    if kind == "json":
        return pd.read_json(path, lines=True, dtype=False)
    return pd.read_parquet(path)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_pandas_reads_the_rows_as_they_are(table: ScoreTable, tmp_path: Path, kind: Kind) -> None:
    url = str(tmp_path / f"out.{kind}")
    made = write_table(table, url, kind, Asked())
    rows = open_scores(table.output).pandas()
    told = read(url, kind)
    assert made.rows == len(told) == len(rows)
    for name in ("key", "shard", "label"):
        assert told[name].tolist() == rows[name].tolist()
    for name in ("multimem", "multimem_low", "multimem_q", "attribution_text"):
        assert told[name].to_numpy() == pytest.approx(rows[name].to_numpy(), nan_ok=True)
    if kind == "csv":
        assert set(told["modalities"]) == {"audio+image+text"}
        assert "cmc" not in told
    else:
        assert list(told["member"].iloc[0]) == list(rows["member"].iloc[0])
    data = Path(url).read_bytes()
    assert (made.size, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_top_comes_best_first_and_with_fields(finished: str, tmp_path: Path) -> None:
    table = ScoreTable(finished, Storage())
    url = str(tmp_path / "top.jsonl")
    asked = Asked(columns=("key", "multimem_shrunk"), fields=("url", "json.source"), top=7)
    made = write_table(table, url, "json", asked, QUIET)
    rows = [json.loads(line) for line in Path(url).read_text().splitlines()]
    best = top(table, None, 7)
    assert made.missed == 0
    assert [row["key"] for row in rows] == [row["key"] for row in best]
    assert list(rows[0]) == ["key", "multimem_shrunk", "json.url", "json.source"]
    for row in rows:
        number = int(row["key"][1:])
        assert row["json.url"] == f"https://host{number % 3}.example/{number}.png"
        assert row["json.source"] == f"tape-{number // 10}"


def test_columns_that_cannot_be_written_are_refused(table: ScoreTable, tmp_path: Path) -> None:
    url = str(tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean 'multimem'"):
        write_table(table, url, "csv", Asked(columns=("multimen",)))
    with pytest.raises(ConfigError, match="'cmc' is a list, unknown to CSV"):
        write_table(table, url, "csv", Asked(columns=("key", "cmc")))
    assert not Path(url).exists()


def test_a_file_is_whole_or_absent(
    table: ScoreTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        yield from list(ScoreTable(table.output, Storage()).batches(["key"]))[:1]
        raise OSError("gone")

    monkeypatch.setattr(tables, "_batches", broken)
    url = tmp_path / "out.parquet"
    with pytest.raises(OSError, match="gone"):
        write_table(table, str(url), "parquet", Asked(columns=("key",)))
    assert list(tmp_path.glob("out*")) == []
