"""Trackers show every epoch once, whatever happened to the training."""

from __future__ import annotations

import logging
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.run import Run
from multimem_ray.storage import Storage
from multimem_ray.training.loggers import RunLoggers, logged_values, require_loggers
from tests.small import small_run

LINE = {"step": 3, "loss": 2.5, "lr": 0.1, "samples": 24, "held_out_recall": {"audio_text": 0.5}}
VALUES = {"step": 3, "loss": 2.5, "lr": 0.1, "samples": 24, "held_out_recall/audio_text": 0.5}


def lines(first: int, last: int) -> list[dict[str, Any]]:
    return [{"epoch": epoch, **LINE} for epoch in range(first, last)]


class Attempts:
    """Attempts at one training, each of which dies after some epochs."""

    def __init__(self, folder: Path, tracker: str) -> None:
        self.run: Run = small_run(folder, f"training.trackers=[{tracker}]")[0]
        self.folder = ModelFolder(Storage(), self.run.path("models", "000"), "f" * 16)

    def attempt(self, first: int, last: int, *, dies: bool = False) -> None:
        tracking = RunLoggers(self.run)
        tracking.__enter__()
        for line in lines(first, last):
            self.folder.append_history([line])
            tracking.tell("000", self.folder, [line])
        error = KeyboardInterrupt() if dies else None
        tracking.__exit__(error and type(error), error, None)

    def missed(self, first: int, last: int) -> None:
        """Epochs of which only the history knows."""
        self.folder.append_history(lines(first, last))


def test_values_of_a_line() -> None:
    assert logged_values(lines(4, 5)[0]) == VALUES
    assert logged_values({"epoch": 1, "loss": None, "lr": 0.1}) == {"lr": 0.1}


def events(folder: Path) -> list[tuple[int, str, float]]:
    """Scalars of the event files: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.glob("events.*"):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 16 + size
    return sorted(found)


def test_tensorboard_has_every_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    attempts = Attempts(tmp_path, "tensorboard")
    attempts.attempt(0, 3, dies=True)
    attempts.missed(3, 4)
    attempts.attempt(2, 6)
    found = events(Path(attempts.run.output, "tensorboard", "000"))
    assert [(e, pytest.approx(v)) for e, tag, v in found if tag == "loss"] == [
        (epoch, 2.5) for epoch in range(6)
    ]
    assert {tag for _, tag, _ in found} == VALUES.keys()


def test_tensorboard_wants_a_local_output(tmp_path: Path) -> None:
    from multimem_ray.training.loggers import LoggedModel, tensorboard

    with pytest.raises(ConfigError, match=r"local outputs only, not to s3://bucket/x"):
        tensorboard(LoggedModel("s3://bucket/x", "000", "f", {})).__enter__()


class FakeMlflow(ModuleType):
    """As much of MLflow as is used, with the parameters of its client (mlflow 2 and 3)."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, str] = {}
        store = self

        class Metric:
            def __init__(self, key: str, value: float, timestamp: int, step: int) -> None:
                self.key, self.value, self.timestamp, self.step = key, value, timestamp, step

        class MlflowClient:
            def __init__(self, tracking_uri: str | None = None) -> None:
                del tracking_uri

            def get_experiment_by_name(self, name: str) -> Any:
                known = store.experiments.get(name)
                return None if known is None else SimpleNamespace(experiment_id=known)

            def create_experiment(self, name: str, artifact_location: Any = None) -> str:
                assert name not in store.experiments
                store.experiments[name] = "7"
                return "7"

            def search_runs(
                self, experiment_ids: list[str], filter_string: str = "", max_results: int = 1000
            ) -> list[Any]:
                assert experiment_ids == ["7"]
                name, _, value = filter_string.removeprefix("tags.").partition(" = ")
                wanted = (name.strip("`"), value.strip("'"))
                return [
                    SimpleNamespace(info=SimpleNamespace(run_id=k))
                    for k, r in store.runs.items()
                    if wanted in r["tags"].items()
                ]

            def create_run(
                self,
                experiment_id: str,
                start_time: int | None = None,
                tags: dict[str, Any] | None = None,
                run_name: str | None = None,
            ) -> Any:
                made = f"run{len(store.runs)}"
                store.runs[made] = {"tags": tags, "name": run_name, "status": [], "metrics": []}
                return SimpleNamespace(info=SimpleNamespace(run_id=made))

            def update_run(
                self, run_id: str, status: str | None = None, name: str | None = None
            ) -> None:
                store.runs[run_id]["status"].append(status)

            def get_metric_history(self, run_id: str, key: str) -> list[Any]:
                return [m for m in store.runs[run_id]["metrics"] if m.key == key]

            def log_batch(
                self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()
            ) -> None:
                store.runs[run_id]["metrics"] += metrics

            def set_terminated(
                self, run_id: str, status: str | None = None, end_time: int | None = None
            ) -> None:
                store.runs[run_id]["status"].append(status)

        self.MlflowClient = MlflowClient
        self.entities = SimpleNamespace(Metric=Metric)


def test_mlflow_has_every_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    attempts = Attempts(tmp_path, "mlflow")
    attempts.attempt(0, 3, dies=True)
    attempts.missed(3, 4)
    attempts.attempt(2, 6)
    (run,) = fake.runs.values()
    assert run["name"] == "out/000"
    assert run["status"] == ["FAILED", "RUNNING", None]
    for name, value in VALUES.items():
        told = [(m.step, m.value) for m in run["metrics"] if m.key == name]
        assert told == [(epoch, value) for epoch in range(6)]


class FakeWandb(ModuleType):
    """As much of W&B as is used; a step that is not after the last one is ignored, as there."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.records: dict[str, dict[int, Any]] = {}
        self.ends: list[int | None] = []

    def init(
        self,
        *,
        project: str | None = None,
        id: str | None = None,  # noqa: A002
        name: str | None = None,
        group: str | None = None,
        config: dict[str, Any] | None = None,
        resume: bool | str | None = None,
        reinit: bool | str | None = None,
    ) -> Any:
        assert (project, name, resume, reinit) == (
            "multimem-ray",
            "out/000",
            "allow",
            "create_new",
        )
        assert config is not None
        assert config["training"]["batch_size"] == 8
        assert id is not None
        record = self.records.setdefault(id, {})
        run = SimpleNamespace(step=max(record) + 1 if record else 0)

        def log(values: dict[str, Any], step: int | None = None) -> None:
            assert step is not None
            assert step >= run.step, "W&B would warn and ignore it"
            record[step], run.step = values, step

        run.log, run.finish = log, lambda exit_code=None: self.ends.append(exit_code)
        return run


def test_wandb_has_every_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    attempts = Attempts(tmp_path, "wandb")
    attempts.attempt(0, 3, dies=True)
    attempts.missed(3, 4)
    attempts.attempt(2, 6)
    assert list(fake.records.values()) == [dict.fromkeys(range(6), VALUES)]
    assert fake.ends == [1, None]


told: list[tuple[str, int]] = []


@contextmanager
def own(model: Any) -> Iterator[Any]:
    yield lambda epoch, values: told.append((model.model, epoch))


@contextmanager
def broken(model: Any) -> Iterator[Any]:
    def log(epoch: int, values: Any) -> None:
        raise OSError(f"no server for {model.name}")

    yield log


def test_a_tracker_of_ones_own_is_a_function(tmp_path: Path) -> None:
    told.clear()
    Attempts(tmp_path, f"'{__name__}:own'").attempt(0, 2)
    assert told == [("000", 0), ("000", 1)]
    assert list(signature(own).parameters) == ["model"]


def test_a_tracker_that_fails_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Attempts(tmp_path, f"'{__name__}:broken'").attempt(0, 4)
    assert [r.message for r in caplog.records if "no server for out/000" in r.message] == [
        f"tracker {__name__}:broken of model 000 left out from here on: no server for out/000"
    ]


def test_what_is_not_there_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"wandb needs wandb: pip install 'multimem-ray\[wandb\]'"
    ):
        require_loggers(["wandb"])
    with pytest.raises(ConfigError, match=r"unknown 'wandbb'; did you mean 'wandb'"):
        require_loggers(["wandbb"])
    with pytest.raises(ConfigError, match=r"there is no package nowhere"):
        require_loggers(["nowhere.at:all"])


def test_trackers_change_no_fingerprint(tmp_path: Path) -> None:
    plain = small_run(tmp_path)[0]
    assert Attempts(tmp_path, "wandb").run.fingerprint == plain.fingerprint
