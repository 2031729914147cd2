"""The audit by a cheaper model beside that of the given one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimem_ray.audit import audit, plan
from multimem_ray.errors import ConfigError
from multimem_ray.results.scores import open_scores
from multimem_ray.results.select import ranking
from multimem_ray.results.table import ScoreTable
from multimem_ray.setup.proxy import proxy_config
from multimem_ray.storage import Storage
from multimem_ray.verify.verify import verify
from tests.small import QUIET, small_config, small_run, write_shards

SETS = ("design.models=4", "design.proxy=smaller", "design.proxy_models=4", "training.epochs=1")


def test_proxies_have_other_halves_and_views_and_half_the_width(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path, *SETS, "model.towers.text.width=32")
    proxy = proxy_config(run)
    assert proxy.output == str(Path(run.output, "proxy"))
    assert proxy.design.draw == 1
    assert proxy.design.proxy is None
    assert proxy.scoring.seed == run.config.scoring.seed + 1
    assert proxy.held_out == run.config.held_out
    widths = {name: proxy.model.towers[name]["width"] for name in run.modalities}
    assert widths == {"audio": 2, "image": 2, "text": 16}
    # It is another run, which leaves the fingerprint of the first as it is.
    plain, _ = small_run(tmp_path, "design.models=4", "training.epochs=1")
    again, _ = small_run(tmp_path, *SETS)
    assert plain.fingerprint == again.fingerprint


def test_a_preset_as_the_proxy_keeps_the_samples(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path, *SETS, "design.proxy=audioclip-tiny")
    proxy = proxy_config(run)
    assert proxy.model.preset == "audioclip-tiny"
    assert proxy.data.fields == dict(run.fields)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("design.proxy=tyni",), "design.proxy: there is no preset 'tyni'.*tiny"),
        (("model.towers.text.kind=tokens", "model.init=x.safetensors"), "model.init gives others"),
    ],
)
def test_what_cannot_be_a_proxy_is_refused(
    tmp_path: Path, sets: tuple[str, ...], said: str
) -> None:
    run, _ = small_run(tmp_path, *SETS)
    (tmp_path / "x.safetensors").touch()
    config = small_config(tmp_path / "shards", tmp_path / "out", *SETS, *sets)
    with pytest.raises(ConfigError, match=said):
        proxy_config(dataclasses.replace(run, config=config))


@pytest.mark.parametrize(
    "sets", [("design.models=2",), ("design.proxy_models=5",), ("design.kind=leave_subset_out",)]
)
def test_designs_that_cannot_be_blended_are_refused(tmp_path: Path, sets: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"design\.proxy"):
        small_config(tmp_path, tmp_path / "out", *SETS, *sets)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Configuration and summary of an audit with proxies."""
    folder = tmp_path_factory.mktemp("proxies")
    shards = write_shards(folder / "shards", samples=180, shards=2)
    config = small_config(shards, folder / "out", *SETS, "scoring.views=1")
    return {"config": config, "summary": audit(config, QUIET, executor="local")}


def test_an_audit_with_proxies_has_columns_of_the_blend(audited: dict[str, Any]) -> None:
    output, blend = audited["config"].output, audited["summary"]["blend"]
    rows = open_scores(output).arrow()
    value = rows["multimem_blend"].to_numpy()
    scored = np.isfinite(rows["multimem"].to_numpy())
    assert np.isfinite(value[scored]).all()
    assert blend["samples"] == scored.sum() > 100
    assert blend["unmatched"] == 0
    assert blend["cost"]["proxies"]["models"] == 4
    assert blend["cost"]["proxies"]["cpu_hours"] > 0
    in_memory = open_scores(output).blended(Path(output, "proxy")).table
    expected = {(r["shard"], r["index"]): r["multimem_blend"] for r in in_memory.to_pylist()}
    for row in rows.to_pylist():
        place = row["shard"], row["index"]
        assert row["multimem_blend"] == pytest.approx(expected[place], abs=1e-12)
    best = open_scores(output).top(5, by="multimem_blend")
    assert [r["multimem_blend"] for r in best] == sorted(value)[::-1][:5]
    table = ScoreTable(output, Storage())
    least = best[-1]["multimem_blend"]
    listed = ranking(table, "multimem_blend").query("key", "WHERE score >= $least", least=least)
    assert len(listed) == (value >= least).sum()
    assert verify(output, Storage(), QUIET, deep=True).faults == []
    assert "proxies: agreement" in Path(output, "report.html").read_text()


def test_a_finished_audit_with_proxies_does_nothing_again(audited: dict[str, Any]) -> None:
    config = audited["config"]
    files = {p: p.stat().st_mtime_ns for p in Path(config.output).rglob("*") if p.is_file()}
    assert audit(config, QUIET, executor="local")["blend"] == audited["summary"]["blend"]
    again = {p: p.stat().st_mtime_ns for p in Path(config.output).rglob("*") if p.is_file()}
    changed = {p.name for p in again if again[p] != files.get(p)}
    assert changed <= {"run.json", "shards.parquet", "000002.json"}


def test_a_blend_of_other_rows_is_not_believed(audited: dict[str, Any]) -> None:
    place = Path(audited["config"].output, "blend.json")
    kept = place.read_text()
    try:
        place.write_text(json.dumps({**json.loads(kept), "of": {"rows": 1}}))
        assert "multimem_blend" not in open_scores(audited["config"].output).arrow().column_names
    finally:
        place.write_text(kept)


def test_the_plan_tells_of_the_proxies(audited: dict[str, Any], tmp_path: Path) -> None:
    shards = Path(audited["config"].output).parent / "shards"
    made = plan(small_config(shards, tmp_path / "out", *SETS), QUIET)
    assert made.proxy is not None
    size = made.proxy.work.parameters
    assert size < made.work.parameters
    assert made.proxy_operations is not None
    assert 0.2 < made.proxy_operations < 0.6
    said = f"4 models of {size:,} parameters, each {made.proxy_operations:.2f} of a full one's"
    assert dict(made.lines())["proxies"].startswith(said)
    assert made.as_json()["proxy"]["work"]["parameters"] == size


def test_of_too_few_samples_no_proxies_are_trained(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", samples=30, shards=1)
    config = small_config(shards, tmp_path / "out", *SETS)
    assert audit(config, QUIET, executor="local")["blend"] is None
    assert not Path(config.output, "proxy").exists()
    assert any("no proxies will be trained" in hint for hint in plan(config, QUIET).hints)
