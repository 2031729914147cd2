"""What references know: joined by hashes, suspicion by each score, chance by model and epoch."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.config import MitigationConfig
from multimem_ray.design.key_list import hashed
from multimem_ray.mitigation.reference_scores import (
    PLACE,
    ReferenceScores,
    prepare_references,
    schema,
)
from multimem_ray.progress import Progress
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run
from tests.small import small_run

KEYS = ["a", "b", "c"]


def loaded(folder: Path) -> ReferenceScores:
    """Three samples as the driver writes them; the second is no member of the first model."""
    run, _ = small_run(folder)
    table = pa.table(
        {
            "id": pa.array(hashed(KEYS)),
            "multimem_shrunk": [0.3, 0.2, None],
            "multimem": [0.5, 0.1, None],
            "clipmem": [0.0, 0.0, 0.0],
            "cmc_out": [1.0, 2.0, 3.0],
            "unseen_clipmem": [0.0, 0.0, 0.0],
            "misfit": [0, -1, 2],
            "listed": [False, True, True],
            "member": [[True, False], [False, True], [True, True]],
        },
        schema=schema(2),
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    run.storage.write_atomic(run.path(*PLACE), buffer.getvalue())
    return ReferenceScores.load(run)


def by(name: str, **settings: object) -> MitigationConfig:
    given = {"kind": "in_training", "references": "x", "by": name}
    return MitigationConfig.model_validate(given | settings)


def test_samples_are_met_again_by_the_hash_of_their_key(tmp_path: Path) -> None:
    references = loaded(tmp_path)
    rows = references.rows(hashed(["c", "nobody", "a"]))
    assert rows[1] == -1
    assert references.scores["cmc_out"][rows[[0, 2]]].tolist() == [3.0, 1.0]
    assert references.misfit[rows[0]] == 2
    assert references.member[rows[2]].tolist() == [True, False]


def test_suspicion_is_of_members_with_a_score(tmp_path: Path) -> None:
    references = loaded(tmp_path)
    rows = references.rows(hashed(KEYS))

    def suspicion(config: MitigationConfig, number: int = 0, epoch: int = 0) -> list[float]:
        return [float(x) for x in references.suspicion(config, number, epoch)[rows]]

    nan = float("nan")
    np.testing.assert_equal(suspicion(by("cmc_out")), [-1.0, nan, -3.0])
    np.testing.assert_equal(suspicion(by("multimem"), 1), [nan, 0.1, nan])
    np.testing.assert_equal(suspicion(by("multimem_shrunk"), 1), [nan, 0.2, nan])
    np.testing.assert_equal(suspicion(by("list", samples="x"), 1), [nan, 0.0, 0.0])
    chance = suspicion(by("random"))
    np.testing.assert_equal(suspicion(by("random")), chance)
    assert suspicion(by("random"), epoch=1)[0] != chance[0]
    assert 0 <= chance[0] < 1


@pytest.mark.parametrize(("models", "column"), [(4, "multimem_shrunk"), (2, "multimem")])
def test_references_rank_by_the_shrunk_score_where_they_have_one(
    tmp_path: Path, models: int, column: str
) -> None:
    audited = fake_run(tmp_path, models=models)
    document = Path(audited.output, "run.json")
    content = json.loads(document.read_text())
    content["config"]["design"]["group"] = None
    document.write_text(json.dumps(content))
    sets = ("mitigation.kind=in_training", f"mitigation.references={audited.output}")
    run, _ = small_run(tmp_path, *sets)
    assert run.config.mitigation.by == "multimem_shrunk"
    assert not run.config.mitigation.watches
    said = io.StringIO()
    prepare_references(run, Progress(Console(file=said, width=500)))
    assert ("no shrunk scores" in said.getvalue()) == (models == 2)
    references = ReferenceScores.load(run)
    table = ScoreTable(audited.output, Storage())
    rows = table.query(f"SELECT key, {column} AS score FROM scores", ["key", column])
    at = references.rows(hashed([row["key"] for row in rows]))
    expected = [row["score"] for row in rows]
    np.testing.assert_allclose(references.scores["multimem_shrunk"][at], expected)
