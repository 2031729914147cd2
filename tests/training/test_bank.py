"""Banks: a model's weights are those it would have had alone, and training learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multimem_ray.errors import ConfigError, TrainingError
from multimem_ray.run import Run
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from multimem_ray.training.stream import TrainingSample, shuffled
from tests.small import small_run
from tests.training.epochs import epoch

CPU = torch.device("cpu")


def trained(
    run: Run, decoded: Sequence[Any], banks: Sequence[Sequence[str]], epochs: int = 2
) -> dict[str, Any]:
    weights = {}
    for ids in banks:
        bank = Bank(run, ids, CPU, threads=2)
        for number in range(epochs):
            bank.train_epoch(number, epoch(run, decoded, number))
        weights |= {m.id: m.model.state_dict() for m in bank.models}
    return weights


def test_weights_do_not_depend_on_the_bank(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "design.models=4")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    alone = trained(run, decoded, [["000"], ["001"], ["002"], ["003"]])
    for banks in ([["000", "001", "002", "003"]], [["003", "000"], ["002", "001"]]):
        together = trained(run, decoded, banks)
        for model_id, weights in alone.items():
            for name, value in weights.items():
                torch.testing.assert_close(together[model_id][name], value, atol=1e-6, rtol=0)


def test_models_differ_and_see_only_their_members(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    bank = Bank(run, ["000", "001"], CPU, threads=1)
    lines = bank.train_epoch(0, epoch(run, decoded, 0))
    members = run.design.members([s.group for s in decoded]).sum(axis=0)
    for number, line in enumerate(lines.values()):
        full, left = divmod(int(members[number]), 8)
        assert line["samples"] == full * 8 + (left if left >= 4 else 0)
        assert line["step"] == full + (left >= 4)
    a, b = (m.model.state_dict() for m in bank.models)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_the_loss_falls(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "training.epochs=12", "training.warmup_steps=0")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    bank = Bank(run, ["000"], CPU, threads=1)
    losses = [bank.train_epoch(n, epoch(run, decoded, n))["000"]["loss"] for n in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_bank_goes_on_from_its_checkpoint_in_other_company(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    straight = trained(run, decoded, [["000", "001"]])
    first = Bank(run, ["000", "001"], CPU, threads=1)
    first.train_epoch(0, epoch(run, decoded, 0))
    first.checkpoint()
    for model_id in ("001", "000"):
        second = Bank(run, [model_id], CPU, threads=1)
        assert second.next_epoch == 1
        second.train_epoch(1, epoch(run, decoded, 1))
        for name, value in second.models[0].model.state_dict().items():
            torch.testing.assert_close(value, straight[model_id][name], atol=1e-6, rtol=0)


class Stopped(Exception):
    """The process is gone."""


def stop_after(bank: Bank, number: int, passed: int) -> Callable[[int], None]:
    """Writes a checkpoint when so many samples are behind, and dies."""

    def passing(now: int) -> None:
        if now == passed:
            bank.checkpoint(number, now)
            raise Stopped

    return passing


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_bank_goes_on_in_the_midst_of_an_epoch(tmp_path: Path, precision: str) -> None:
    run, shards = small_run(tmp_path, "training.batch_size=5", f"training.precision={precision}")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    alone = Bank(run, ["000", "001"], CPU, threads=2)
    lines = [alone.train_epoch(n, epoch(run, decoded, n)) for n in range(2)]

    # The second stop is before the place where it was resumed; the third bank has one model.
    attempts = [(["000", "001"], 13), (["001", "000"], 7), (["001"], 20), (["000", "001"], 24)]
    for ids, passed in attempts:
        bank = Bank(run, ids, CPU, threads=2)
        assert bank.next_epoch == 0
        with pytest.raises(Stopped):
            bank.train_epoch(0, epoch(run, decoded, 0), stop_after(bank, 0, passed))
    bank = Bank(run, ["000", "001"], CPU, threads=2)
    again = [bank.train_epoch(n, epoch(run, decoded, n)) for n in range(2)]
    for whole, model in zip(alone.models, bank.models, strict=True):
        for name, value in whole.model.state_dict().items():
            torch.testing.assert_close(model.model.state_dict()[name], value, atol=1e-6, rtol=0)
    for one, two in zip(lines, again, strict=True):
        for model_id, line in one.items():
            assert two[model_id]["loss"] == pytest.approx(line["loss"], abs=1e-6)
            assert two[model_id]["step"] == line["step"]
            assert two[model_id]["samples"] == line["samples"]


def test_another_stream_after_a_stop_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, shards = small_run(tmp_path, "training.batch_size=5")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]

    def named(less: int) -> Iterator[TrainingSample]:
        order = shuffled(decoded[less:], 100, 0, 0)
        for sample, item in zip(order, epoch(run, decoded[less:], 0), strict=True):
            yield TrainingSample(*item, sample.key)

    bank = Bank(run, ["000"], CPU, threads=1)
    with pytest.raises(Stopped):
        bank.train_epoch(0, named(0), stop_after(bank, 0, 20))
    Bank(run, ["000"], CPU, threads=1).train_epoch(0, named(0))
    assert not caplog.messages
    Bank(run, ["000"], CPU, threads=1).train_epoch(0, named(3))
    assert "model 000: sample 20 of epoch 0 was s" in caplog.text


def test_what_was_used_before_a_stop_is_not_wanted_again(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "training.batch_size=5")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    bank = Bank(run, ["000"], CPU, threads=1)
    with pytest.raises(Stopped):
        bank.train_epoch(0, epoch(run, decoded, 0), stop_after(bank, 0, 20))
    members = [m for _, m, _ in epoch(run, decoded, 0)]
    again = Bank(run, ["000"], CPU, threads=1)
    wanted = [again.needs(0, place, m) for place, m in enumerate(members)]
    assert wanted[20:] == [m[0] for m in members[20:]]
    used = sum(m[0] for m in members[:20])
    assert sum(wanted[:20]) == used % 5
    assert again.models[0].step == used // 5


def test_divergence_names_model_and_step(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "training.lr=1e30", "training.clip_norm=null")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    bank = Bank(run, ["001"], CPU, threads=1)
    with pytest.raises(
        TrainingError, match=r"model 001: the loss is \w+ at step \d+.*training\.lr"
    ):
        [bank.train_epoch(n, epoch(run, decoded, n)) for n in range(3)]


def test_a_model_that_is_ahead_waits_for_the_others(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    bank = Bank(run, ["000", "001"], CPU, threads=1)
    bank.models[1].epoch, bank.models[1].step = 1, 5
    assert bank.next_epoch == 0
    assert list(bank.train_epoch(0, epoch(run, decoded, 0))) == ["000"]
    assert sorted(bank.train_epoch(1, epoch(run, decoded, 1))) == ["000", "001"]


def test_noise_is_the_models_own_and_survives_resumption(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "training.noise.text=0.3", "design.models=4")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    plain, _ = small_run(tmp_path, "design.models=4")
    straight = trained(run, decoded, [["000", "001", "002", "003"]])
    first = Bank(run, ["002"], CPU, threads=1)
    first.train_epoch(0, epoch(run, decoded, 0))
    first.checkpoint()
    second = Bank(run, ["002"], CPU, threads=1)
    second.train_epoch(1, epoch(run, decoded, 1))
    quiet = trained(plain, decoded, [["002"]])["002"]
    differs = False
    for name, value in second.models[0].model.state_dict().items():
        torch.testing.assert_close(value, straight["002"][name], atol=1e-6, rtol=0)
        differs = differs or not torch.allclose(value, quiet[name], atol=1e-5)
    assert differs


def test_noise_on_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.noise\.video.*audio, image, text"):
        small_run(tmp_path, "training.noise.video=0.1")


def test_micro_batches_train_the_same_model(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    small, _ = small_run(tmp_path, "training.micro_batch=3")
    whole, parts = (trained(r, decoded, [["000"]])["000"] for r in (run, small))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=0)


def test_dropout_does_not_depend_on_the_bank(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]

    def last(ids: list[str]) -> dict[str, Any]:
        bank = Bank(run, ids, CPU, threads=2)
        for state in bank.models:
            text = state.model.towers["text"]
            text.register_forward_hook(lambda _, __, out: torch.dropout(out, 0.5, True))
            state.dropout = replace(state.dropout, active=True)
        bank.train_epoch(0, epoch(run, decoded, 0))
        return {m.id: m.model.state_dict() for m in bank.models}

    together, alone = last(["000", "001"]), last(["001"])
    for name, value in alone["001"].items():
        torch.testing.assert_close(together["001"][name], value, atol=1e-6, rtol=0)
