"""Before and after: what is compared with what, and that it is the same samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.audit import mitigate
from multimem_ray.design.key_list import hashed
from multimem_ray.errors import ConfigError
from multimem_ray.evaluation.mitigation import (
    chosen_ids,
    compare_memory,
    compared,
    memory_table,
    overhead,
    utility,
    utility_table,
)
from multimem_ray.report.mitigation import write_mitigation
from multimem_ray.run import Run
from multimem_ray.setup import open_run
from tests.mitigation.small_audit import QUIET, history, small_audit
from tests.small import small_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and a finished audit of them in ``plain``."""
    made = tmp_path_factory.mktemp("compare")
    small_audit(made, "plain")
    return made


def mitigated(folder: Path, name: str, *sets: str) -> Run:
    return small_audit(folder, name, f"mitigation.references={folder / 'plain'}", *sets)


def rows(output: Path | str) -> dict[str, dict[str, Any]]:
    found = sorted(Path(output, "scores").glob("*/*.parquet"))
    return {r["key"]: r for r in pa.concat_tables([pq.read_table(f) for f in found]).to_pylist()}


def test_the_figures_are_those_of_the_score_files(folder: Path) -> None:
    run = mitigated(
        folder,
        "unpaired",
        "mitigation.kind=in_training",
        "mitigation.by=cmc_out",
        "mitigation.treatment=unpair",
        "mitigation.percent=25",
    )
    before, after = rows(folder / "plain"), rows(run.output)
    assert before.keys() == after.keys()
    made = compare_memory(run, str(folder / "plain"))
    assert made["samples"] == len(before)
    old = {key: row["multimem"] for key, row in before.items()}
    new = {key: row["multimem"] for key, row in after.items()}
    assert made["before"]["all"] == pytest.approx(np.mean(list(old.values())))
    assert made["matched"] == pytest.approx(np.mean(list(new.values())))
    assert made["change"] == pytest.approx(made["matched"] / made["before"]["all"] - 1)
    unmatched = np.mean([after[k]["cmc_in"] - before[k]["cmc_out"] for k in before])
    assert made["unmatched"] == pytest.approx(unmatched)
    levels = [
        np.mean(
            [
                m["cmc_mean"]
                for m in json.loads(Path(out, "held_out/held_out.json").read_text())[
                    "models"
                ].values()
            ]
        )
        for out in (run.output, folder / "plain")
    ]
    assert made["corrected"] == pytest.approx(unmatched - (levels[0] - levels[1]))
    chosen = {key for key in before if int(hashed([key])[0]) in set(chosen_ids(run).tolist())}
    assert 0.2 * len(before) < len(chosen) < 0.3 * len(before)
    assert made["after"]["untouched"] == pytest.approx(
        np.mean([new[key] for key in new if key not in chosen])
    )
    assert made["before"]["chosen"] == pytest.approx(np.mean([old[key] for key in chosen]))


def test_the_same_recipe_changes_nothing(folder: Path) -> None:
    again = small_audit(folder, "again")
    made = compare_memory(again, str(folder / "plain"))
    assert made["change"] == pytest.approx(0.0, abs=1e-6)
    assert made["corrected"] == pytest.approx(made["matched"], abs=1e-6)
    assert made["count"]["chosen"] == 0


@pytest.mark.parametrize("by", ["multimem", "cosine", "gradient_norm", "clipmem", "random"])
def test_post_training_goes_on_with_each_models_own_weights(folder: Path, by: str) -> None:
    sets = ("mitigation.kind=post_training", f"mitigation.by={by}", "mitigation.treatment=drop")
    run = mitigated(folder, f"post-{by}", *sets, "mitigation.top=4", "training.lr=1e-12")
    from safetensors.torch import load

    for model in run.design.model_ids():
        name = run.model_folder(model).path("model.safetensors")
        now = load(run.storage.read_bytes(name))
        then = load((folder / "plain" / "models" / model / "model.safetensors").read_bytes())
        assert all(np.allclose(now[k], then[k], atol=1e-6) for k in now)
        lines = history(run, model)
        assert [line["chosen"] for line in lines] == [4, 4]
        members = sum(
            row["member"][run.design.model_ids().index(model)] for row in rows(run.output).values()
        )
        assert lines[0]["samples"] == members - 4


def test_a_list_of_samples_is_what_is_left_out(folder: Path) -> None:
    worst = sorted(rows(folder / "plain").values(), key=lambda row: -row["multimem"])[:6]
    table = pa.table({"key": [r["key"] for r in worst], "shard": [r["shard"] for r in worst]})
    pq.write_table(table, folder / "worst.parquet")
    run = mitigated(
        folder,
        "listed",
        "mitigation.kind=post_training",
        "mitigation.by=list",
        f"mitigation.samples={folder / 'worst.parquet'}",
        "mitigation.treatment=drop",
    )
    assert set(chosen_ids(run).tolist()) == set(hashed([r["key"] for r in worst]).tolist())
    for number, model in enumerate(run.design.model_ids()):
        own = sum(row["member"][number] for row in worst)
        assert history(run, model)[0]["chosen"] == own


def test_all_side_by_side(folder: Path) -> None:
    run = mitigated(folder, "post-random2", "mitigation.kind=post_training", "mitigation.by=random")
    made = compared(run, str(folder / "plain"), QUIET)
    plain = json.loads((folder / "plain" / "evaluation.json").read_text())
    assert made["utility"]["before"] == utility(plain)
    of_r1 = [row["mean"] for row in plain["mean"] if row["task"] == "R@1"]
    assert made["utility"]["before"]["R@1"] == pytest.approx(np.mean(of_r1))
    spent = overhead(run)
    assert spent is not None
    assert 0 < spent["share"] < 1


def test_figures_have_intervals_and_the_page_shows_them(folder: Path) -> None:
    sets = ("mitigation.kind=in_training", "mitigation.by=cmc_out", "mitigation.percent=20")
    run = mitigated(folder, "page", *sets, "mitigation.treatment=unpair")
    made = compared(run, str(folder / "plain"), QUIET)
    memory = made["memory"]
    for name in ("before", "after"):
        ends, mean = memory["intervals"][name]["all"], memory[name]["all"]
        assert ends["low"] < mean < ends["high"]
    before, after = rows(folder / "plain"), rows(run.output)
    top = memory["treated"][0]
    assert top["before"] == pytest.approx(before[top["key"]]["multimem"])
    assert top["after"] == pytest.approx(after[top["key"]]["multimem"])
    assert top["before"] == max(row["before"] for row in memory["treated"])
    tables = memory_table(memory), utility_table(made)
    assert all(None not in row[:-1] for table in tables for row in table.rows)
    html = Path(write_mitigation(run, made, tables)).read_text("utf-8")
    for words in ("trained on without the modality", "Wilson", "chosen at random", top["key"]):
        assert words in html
    assert html.count("<polyline") == 4
    assert not re.search(r">(None|nan)<", html)


def test_a_mitigation_must_be_configured(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"mitigation\.kind is none"):
        mitigate(small_config(folder / "shards", folder / "none"), QUIET)


def test_runs_of_other_samples_are_refused(folder: Path, tmp_path: Path) -> None:
    from tests.results.fake_run import fake_run

    run, _ = open_run(small_config(folder / "shards", folder / "plain", "training.batch_size=8"))
    with pytest.raises(ConfigError, match="no sample in common"):
        compare_memory(run, fake_run(tmp_path).output)
