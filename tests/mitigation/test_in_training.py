"""Mitigated trainings: matched, resumable, independent of banks, and telling what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from multimem_ray.design.key_list import hashed
from multimem_ray.distributed.metrics import Monitor
from multimem_ray.errors import ConfigError
from multimem_ray.mitigation.reference_scores import ReferenceScores, prepare_references
from multimem_ray.run import Run
from multimem_ray.setup import open_run
from multimem_ray.training.bank import Bank
from multimem_ray.training.callbacks import TrainCallbacks
from multimem_ray.training.worker import train_bank
from tests.mitigation.small_audit import QUIET, history, small_audit
from tests.small import small_config
from tests.training.epochs import SilentCounter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and a finished audit of them in ``plain``."""
    made = tmp_path_factory.mktemp("mitigation")
    small_audit(made, "plain", "design.models=4")
    return made


def sets(folder: Path, *more: str) -> list[str]:
    return [
        "design.models=4",
        "mitigation.kind=in_training",
        f"mitigation.references={folder / 'plain'}",
        "mitigation.percent=30",
        "mitigation.every=2",
        "training.epochs=5",
        *more,
    ]


def trained(
    folder: Path, name: str, banks: list[list[str]], *more: str, epochs: int | None = None
) -> Run:
    """Only the models; with ``epochs``, interrupted after so many."""
    config = small_config(folder / "shards", folder / name, *sets(folder, *more))
    run, shards = open_run(config)
    prepare_references(run, QUIET)
    for ids in banks:
        todo = [m for m in ids if not run.is_trained(m)]
        if not todo:
            continue
        if epochs is None:
            train(run, shards.scored, todo, folder / "cache")
        else:
            killer: Any = _Killer(epochs)
            with pytest.raises(KeyboardInterrupt):
                train(run, shards.scored, todo, folder / "cache", killer)
    return run


def train(
    run: Run, shards: Any, models: list[str], cache: Path, monitor: Monitor | None = None
) -> None:
    train_bank(run, models, 2, 1, SilentCounter(), shards, monitor, cache)


class _Killer:
    """A monitor that stops the training when it is told of an epoch."""

    def __init__(self, epochs: int) -> None:
        self._inner, self._left = Monitor(""), epochs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def timing(self, stage: str) -> Any:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._inner.timing(stage)


def train_however_often_it_dies(
    run: Run, shards: Any, models: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Train, with a checkpoint and death after every thirteenth sample; how often it died."""
    died, passing, begin = 0, TrainCallbacks.passing, Bank.begin_checkpoint

    def checkpoint_and_die(bank: Bank, *args: Any) -> None:
        begin(bank, *args)
        bank.writer.wait()
        raise KeyboardInterrupt

    def passing_with_risk(callbacks: TrainCallbacks, epoch: int, passed: int) -> None:
        before = max(model.passed for model in callbacks._bank.models)
        if passed % 13 == 12 and passed > before:
            with monkeypatch.context() as patch:
                patch.setattr(TrainCallbacks, "_is_due", lambda *_, **__: True)
                patch.setattr(Bank, "begin_checkpoint", checkpoint_and_die)
                passing(callbacks, epoch, passed)

    while True:
        try:
            with monkeypatch.context() as patch:
                patch.setattr(TrainCallbacks, "passing", passing_with_risk)
                train(run, shards, models, cache)
        except KeyboardInterrupt:
            died += 1
        else:
            return died


@pytest.mark.parametrize(
    ("by", "treatment", "least"),
    # By what the running model does, the epochs before a choice are watched as a whole.
    [("cmc_out", "augment", 6), ("random", "unpair", 6), ("multimem", "augment", 3)],
)
def test_stops_in_the_midst_of_epochs_change_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: str, treatment: str, least: int
) -> None:
    how = (f"mitigation.by={by}", f"mitigation.treatment={treatment}")
    ids = ["000", "001"]
    whole = trained(folder, f"{by}-undisturbed", [ids], *how)
    config = small_config(folder / "shards", folder / f"{by}-stopped", *sets(folder, *how))
    run, shards = open_run(config)
    prepare_references(run, QUIET)
    died = train_however_often_it_dies(run, shards.scored, ids, folder / "cache", monkeypatch)
    assert died >= least
    for model in ids:
        a, b = weights(whole, model), weights(run, model)
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, atol=1e-6, rtol=0)
        assert [x["loss"] for x in history(run, model)] == pytest.approx(
            [x["loss"] for x in history(whole, model)], abs=1e-6
        )


def weights(run: Run, model: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(run.storage.read_bytes(run.model_folder(model).path("model.safetensors")))


WAYS = [
    ("multimem", "augment"),
    ("cmc_out", "unpair"),
    ("gradient_norm", "drop"),
    ("random", "augment"),
]


@pytest.mark.parametrize(("by", "treatment"), WAYS)
def test_banks_and_interruption_change_nothing(folder: Path, by: str, treatment: str) -> None:
    how = (f"mitigation.by={by}", f"mitigation.treatment={treatment}")
    ids = ["000", "001", "002", "003"]
    whole = trained(folder, f"{by}-whole", [ids], *how)
    other = trained(folder, f"{by}-other", [["003", "000"]], *how, epochs=3)
    assert not other.is_trained("000")
    trained(folder, f"{by}-other", [["000"], ["001", "002"], ["003"]], *how)
    for model in ids:
        a, b = weights(whole, model), weights(other, model)
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, atol=1e-6, rtol=0)
        mine, theirs = history(whole, model), history(other, model)
        assert [line["chosen"] for line in mine] == [line["chosen"] for line in theirs]
        assert max(line["chosen"] for line in mine) > 0


@pytest.mark.parametrize(("by", "treatment"), WAYS)
def test_a_mitigation_changes_the_training(folder: Path, by: str, treatment: str) -> None:
    how = (f"mitigation.by={by}", f"mitigation.treatment={treatment}")
    plain = ("mitigation.percent=0.001", "mitigation.noise=0", "mitigation.treatment=augment")
    run = trained(folder, f"{by}-whole", [["000", "001", "002", "003"]], *how)
    base = trained(folder, "unmitigated", [["000"]], "mitigation.kind=none", *plain)
    different = [
        not torch.equal(value, weights(base, "000")[name])
        for name, value in weights(run, "000").items()
    ]
    assert any(different)


def test_overhead_is_told_in_the_history(folder: Path) -> None:
    run = trained(folder, "multimem-whole", [["000"]], "mitigation.by=multimem")
    lines = history(run)
    assert [line["chosen"] > 0 for line in lines] == [False, True, True, True, True]
    assert [line["mitigation_s"] > 0 for line in lines] == [False, True, False, True, False]


def test_what_is_unpaired_are_the_least_consistent_of_each_model(folder: Path) -> None:
    run = trained(
        folder, "cmc_out-whole", [["000"]], "mitigation.by=cmc_out", "mitigation.treatment=unpair"
    )
    references = ReferenceScores.load(run)
    table = pq.read_table(next((folder / "plain" / "scores").glob("*/*.parquet")))
    rows = {int(hashed([r["key"]])[0]): r for r in table.to_pylist()}
    for number in range(4):
        members = [row for row in rows.values() if row["member"][number]]
        assert members
        for row in members:
            at = references.rows(hashed([row["key"]]))[0]
            assert references.member[at, number]
            assert references.scores["cmc_out"][at] == row["cmc_out"]
            fit = {m: row[f"unseen_{m}"] for m in run.modalities}
            known = {m: v for m, v in fit.items() if v is not None}
            assert run.modalities[references.misfit[at]] == min(known, key=known.__getitem__)
            total = len(known) / 2 + sum(known.values())
            assert row["cmc_out"] == pytest.approx(total, abs=1e-6)
    suspicion = references.suspicion(run.config.mitigation, 0, 0)
    count = round(0.3 * references.member[:, 0].sum())
    lowest = np.sort(-suspicion[~np.isnan(suspicion)])[:count]
    assert history(run)[0]["chosen"] == count
    assert lowest[-1] <= np.median(-suspicion[~np.isnan(suspicion)])


def test_references_must_fit(folder: Path) -> None:
    cases = {
        "no run": f"mitigation.references={folder / 'nothing'}",
        "very models": "mitigation.kind=post_training",
    }
    for number, (match, change) in enumerate(cases.items()):
        more = ("model.dim=8",) if match == "very models" else ()
        config = small_config(
            folder / "shards", folder / f"bad{number}", *sets(folder, change, *more)
        )
        run, _ = open_run(config)
        with pytest.raises(ConfigError, match=match):
            prepare_references(run, QUIET)


def test_what_the_configuration_refuses(tmp_path: Path) -> None:
    shards, out = tmp_path / "shards", tmp_path / "out"
    for match, change in {
        "name the output": ["mitigation.kind=in_training"],
        "goes with a list": [
            "mitigation.kind=in_training",
            "mitigation.references=x",
            "mitigation.by=list",
        ],
        "needs an epoch": [
            "mitigation.kind=in_training",
            "mitigation.references=x",
            "mitigation.by=multimem",
            "mitigation.start=0",
        ],
        "workers_per_bank": [
            "mitigation.kind=in_training",
            "mitigation.references=x",
            "resources.train.workers_per_bank=2",
        ],
    }.items():
        with pytest.raises(ConfigError, match=match):
            small_config(shards, out, *change)


def test_without_a_mitigation_the_fingerprint_is_that_of_old(tmp_path: Path) -> None:
    config = small_config(tmp_path / "shards", tmp_path / "out")
    assert "mitigation" not in config.score_relevant()
    changed = config.model_copy(
        update={"mitigation": config.mitigation.model_copy(update={"kind": "in_training"})}
    )
    assert json.dumps(changed.score_relevant()["mitigation"])
    assert changed.fingerprint() != config.fingerprint()
