"""Two audits of the same samples, blended."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.results.scores import open_scores
from tests.results.fake_run import fake_run


def drawn(output: str, draw: int) -> str:
    """The run with another draw of halves written into its configuration."""
    place = Path(output) / "run.json"
    content = json.loads(place.read_text())
    content["config"]["design"]["draw"] = draw
    place.write_text(json.dumps(content))
    return output


def test_every_scored_sample_has_a_blend(tmp_path: Path) -> None:
    full = fake_run(tmp_path / "full", undefined=3)
    proxies = fake_run(tmp_path / "proxies", models=8, shards=2)
    blended = open_scores(full.output).blended(drawn(proxies.output, 1))
    scored = int(np.isfinite(full.column("multimem")).sum())
    assert blended.table.num_rows == scored
    # The third shard is not in the other run.
    missing = blended.table["proxy"].null_count
    assert 0 < missing == blended.unmatched
    assert blended.blend.samples + blended.unmatched == scored
    score = blended.table["multimem_blend"].to_numpy()
    assert np.isfinite(score).all()
    assert (np.diff(score) <= 0).all()
    assert (blended.table["multimem_blend_sd"].to_numpy() >= 0).all()


def test_the_literal_score_is_that_of_the_run(tmp_path: Path) -> None:
    full = fake_run(tmp_path / "full", models=4)
    proxies = fake_run(tmp_path / "proxies", models=4)
    rows = open_scores(full.output).blended(drawn(proxies.output, 1)).table.to_pylist()
    own = {(row["shard"], row["index"]): row["multimem"] for row in full.rows}
    theirs = {(row["shard"], row["index"]): row["multimem"] for row in proxies.rows}
    for row in rows:
        place = row["shard"], row["index"]
        assert row["multimem"] == own[place]
        assert row["proxy"] == pytest.approx(theirs[place])


def test_runs_that_cannot_be_blended_are_refused(tmp_path: Path) -> None:
    full, same = fake_run(tmp_path / "full"), fake_run(tmp_path / "same", seed=1)
    with pytest.raises(ConfigError, match=r"another design\.draw"):
        open_scores(full.output).blended(same.output)
    pair = fake_run(tmp_path / "pair", models=2)
    with pytest.raises(ConfigError, match="two pairs of either model"):
        open_scores(full.output).blended(drawn(pair.output, 1))
    folds = fake_run(tmp_path / "folds", models=6, kind="three_folds")
    with pytest.raises(ConfigError, match="no audit by complementary_halves"):
        open_scores(full.output).blended(drawn(folds.output, 1))
    few = [fake_run(tmp_path / name, shards=1, rows=40) for name in ("few", "others")]
    with pytest.raises(ConfigError, match="40 scored samples in common"):
        open_scores(few[0].output).blended(drawn(few[1].output, 1))
