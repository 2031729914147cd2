"""Two ranks train the models of one: uneven slices, missing modalities, unusable samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import distributed

from multimem_ray.models.collectives import average_gradients, rank
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.training.bank import Bank
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.decode import RankShard
from multimem_ray.training.stream import Split, TrainingStream, viewed
from tests.small import members, small_run

CPU = torch.device("cpu")
WORLD = 2
CASES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "rough": ("training.micro_batch=3", "training.noise.text=0.2", "training.precision=bf16"),
}


def write_damaged(folder: Path) -> None:
    """Two shards; some samples cannot be decoded, the pictures of a whole stretch are missing."""
    with ShardWriter(str(folder), max_samples=20) as writer:
        for number in range(40):
            made = members(number, image=not 10 <= number < 20)
            if number in {3, 6, 25}:
                made["flac"] = b"this is no sound"
            writer.write(f"s{number:04d}", made)


def trained(folder: str, name: str, sets: Sequence[str], epochs: int = 2) -> dict[str, Any]:
    """Weights, lines and keys of the samples decoded here."""
    torch.set_num_threads(1)
    run, shards = small_run(Path(folder), *sets)
    split = Split()
    stream = TrainingStream(run, shards.scored, DecodedCache(Path(folder, name), 10**9), 1, split)
    bank, decoded, lines = Bank(run, ["000", "001"], CPU, threads=2), set(), []

    def prepared(number: int) -> Iterator[tuple[Any, Any, float]]:
        for sample, share in stream.epoch(number):
            views = None
            if sample.arrays:
                decoded.add(sample.key)
                (views,) = viewed(run, [sample], number, CPU)
            yield views, run.design.members([sample.group])[0].tolist(), share

    lines += [bank.train_epoch(number, prepared(number)) for number in range(epochs)]
    return {
        "weights": {m.id: m.model.state_dict() for m in bank.models},
        "lines": lines,
        "decoded": sorted(decoded),
    }


def _averages(number: int) -> None:
    """Of gradients that every rank has, that one has, and that nobody has."""
    parameters = [torch.nn.Parameter(torch.zeros(2, 3, 2, 2)) for _ in range(3)]
    parameters[0].data = parameters[0].data.contiguous(memory_format=torch.channels_last)
    values = torch.arange(24.0).reshape(2, 3, 2, 2)
    parameters[0].grad = (values * (1 + 2 * number)).contiguous(memory_format=torch.channels_last)
    if number == 1:
        parameters[1].grad = values.clone()
    average_gradients(parameters)
    assert parameters[0].grad is not None
    assert parameters[1].grad is not None
    torch.testing.assert_close(parameters[0].grad, 2 * values)
    assert parameters[0].grad.stride() == parameters[0].stride()
    torch.testing.assert_close(parameters[1].grad, values / 2)
    assert parameters[2].grad is None


def _rank(number: int, folder: str) -> None:
    store = distributed.FileStore(f"{folder}/store", WORLD)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=WORLD)
    _averages(number)
    for case, sets in CASES.items():
        torch.save(trained(f"{folder}/{case}", "shared", sets), f"{folder}/{case}/rank-{rank()}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes, started once, trained every case."""
    folder = tmp_path_factory.mktemp("ranks")
    for case in CASES:
        write_damaged(folder / case / "shards")
    torch.multiprocessing.start_processes(_rank, (str(folder),), nprocs=WORLD, start_method="spawn")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_the_models_of_one(case: str, ranks: Path) -> None:
    sets, folder = CASES[case], ranks / case
    alone = trained(str(folder), "alone", sets)
    found = [torch.load(folder / f"rank-{n}.pt", weights_only=False) for n in range(WORLD)]
    assert not set(found[0]["decoded"]) & set(found[1]["decoded"]), "each decodes its own"
    assert sorted(found[0]["decoded"] + found[1]["decoded"]) == alone["decoded"]
    assert len(alone["decoded"]) > 20
    atol = 1e-2 if sets else 1e-5
    for one in found:
        for epoch, line in enumerate(alone["lines"]):
            for model_id, expected in line.items():
                there = one["lines"][epoch][model_id]
                assert {k: there[k] for k in ("samples", "step", "lr")} == {
                    k: expected[k] for k in ("samples", "step", "lr")
                }
                assert there["loss"] == pytest.approx(expected["loss"], abs=atol)
        for model_id, weights in alone["weights"].items():
            for name, value in weights.items():
                torch.testing.assert_close(
                    one["weights"][model_id][name], value, atol=atol, rtol=0, msg=name
                )
    for model_id, weights in found[0]["weights"].items():
        for name, value in weights.items():
            assert torch.equal(found[1]["weights"][model_id][name], value)


def test_parts_cover_every_sample_once() -> None:
    parts = [RankShard(number, 3) for number in range(3)]
    for index in range(30):
        assert sum(part.has(index) for part in parts) == 1
    assert len({part.named("shard") for part in parts}) == 3
    assert RankShard().has(7)
    assert RankShard().named("shard") == "shard"


def test_one_rank_asks_nobody() -> None:
    tables: list[Any] = []
    assert Split().usable(tables) is tables
    average_gradients([])


def test_a_gpu_is_not_shared_by_ranks(tmp_path: Path) -> None:
    from multimem_ray.errors import ConfigError

    with pytest.raises(ConfigError, match=r"workers_per_bank: each needs a GPU"):
        small_run(tmp_path, "resources.train.gpus=1", "resources.train.workers_per_bank=2")
