"""Experiment trackers: what ``history.jsonl`` tells, shown elsewhere while training goes on.

A tracker is one function: it opens the record of one model, yields a function that logs an
epoch, and closes the record afterwards. It is told every epoch from the first, also those of an
earlier attempt, and must not show one twice: so a tracker which missed some catches up. Another
tracker is named by ``package.module:function``.

The history is the truth; a tracker that fails is left out from then on and stops no training.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from multimem_ray.config import digest, nearest
from multimem_ray.errors import ConfigError
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.run import Run

logger = logging.getLogger(__name__)

PROJECT = "multimem-ray"
_MOST_FAILURES_TOLD = 300


@dataclass(frozen=True)
class LoggedModel:
    """Whose record it is.

    Args:
        output: Folder or URL of the run.
        model: Id of the model.
        fingerprint: Of its training; the same when it is resumed, another for another training.
        config: Sections ``model`` and ``training`` of the configuration.
    """

    output: str
    model: str
    fingerprint: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For people: last part of the output, and the model."""
        return f"{self.output.rstrip('/').rsplit('/', 1)[-1]}/{self.model}"

    @property
    def key(self) -> str:
        """For machines: one record for each training of each model."""
        return digest([self.output, self.model, self.fingerprint])


Log = Callable[[int, Mapping[str, float]], None]
Tracker = Callable[[LoggedModel], AbstractContextManager[Log]]


@contextmanager
def tensorboard(model: LoggedModel) -> Iterator[Log]:
    """Event files in ``<output>/tensorboard/<model>``, written anew when training is resumed."""
    if "://" in model.output:
        raise ConfigError(
            f"training.trackers: tensorboard writes to local outputs only, not to {model.output}"
        )
    folder = Path(model.output, "tensorboard", model.model)
    shutil.rmtree(folder, ignore_errors=True)
    writer = _imported("tensorboardX", "tensorboard").SummaryWriter(str(folder))

    def log(epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def mlflow(model: LoggedModel) -> Iterator[Log]:
    """A run of MLflow's experiment ``multimem-ray``, found again by a tag."""
    package = _imported("mlflow", "mlflow")
    client = package.MlflowClient()
    found = client.get_experiment_by_name(PROJECT)
    experiment = client.create_experiment(PROJECT) if found is None else found.experiment_id
    tag = "multimem.key"
    runs = client.search_runs([experiment], filter_string=f"tags.`{tag}` = '{model.key}'")
    if runs:
        run = runs[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        tags = {tag: model.key, "multimem.output": model.output, "multimem.model": model.model}
        run = client.create_run(experiment, tags=tags, run_name=model.name).info.run_id
    known = {metric.step for metric in client.get_metric_history(run, "lr")}

    def log(epoch: int, values: Mapping[str, float]) -> None:
        if epoch not in known:
            now = int(time.time() * 1000)
            metric = package.entities.Metric
            client.log_batch(run, [metric(k, v, now, epoch) for k, v in values.items()])

    try:
        yield log
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)


@contextmanager
def wandb(model: LoggedModel) -> Iterator[Log]:
    """A run of the W&B project ``multimem-ray``, resumed by its id."""
    run = _imported("wandb", "wandb").init(
        project=PROJECT,
        id=model.key,
        name=model.name,
        group=model.output,
        config=dict(model.config),
        resume="allow",
        reinit="create_new",
    )
    first = run.step  # of a resumed run, the step after its last

    def log(epoch: int, values: Mapping[str, float]) -> None:
        if epoch >= first:
            run.log(dict(values), step=epoch)

    try:
        yield log
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


TRACKERS: dict[str, tuple[Tracker, str]] = {
    "mlflow": (mlflow, "mlflow"),
    "tensorboard": (tensorboard, "tensorboardX"),
    "wandb": (wandb, "wandb"),
}


def require_loggers(names: Iterable[str]) -> None:
    """Check that trackers are there, without loading what they need.

    Raises:
        ConfigError: An unknown name, or a package that is not installed.
    """
    for name in names:
        if ":" not in name and name not in TRACKERS:
            raise ConfigError(
                f"training.trackers: unknown '{name}'{nearest(name, TRACKERS)}; your own is "
                "package.module:function"
            )
        package = TRACKERS[name][1] if name in TRACKERS else name.split(".")[0].split(":")[0]
        if importlib.util.find_spec(package) is None:
            raise _absent(package, name)


def _tracker(name: str) -> Tracker:
    if name in TRACKERS:
        return TRACKERS[name][0]
    module, _, function = name.partition(":")
    try:
        found: Tracker = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"training.trackers: {name}: {error}") from error
    return found


def _imported(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise _absent(package, extra) from error


def _absent(package: str, extra: str) -> ConfigError:
    if extra not in TRACKERS:
        return ConfigError(f"training.trackers: {extra}: there is no package {package}")
    return ConfigError(
        f"training.trackers: {extra} needs {package}: pip install 'multimem-ray[{extra}]'"
    )


class RunLoggers:
    """The configured trackers of the models of a bank; a context manager that closes them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._names = run.config.training.trackers
        self._open = ExitStack()
        self._logs: dict[tuple[str, str], Log | None] = {}
        self._told: set[tuple[str, str, int]] = set()

    def __enter__(self) -> Self:
        self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        try:
            return self._open.__exit__(*error)
        except Exception as failure:  # noqa: BLE001 - all is written that matters
            logger.warning("closing trackers: %s", failure)
            return None

    def tell(self, model_id: str, folder: ModelFolder, lines: Sequence[Mapping[str, Any]]) -> None:
        """Tell every tracker of epochs that were just added to the history of a model."""
        for name in self._names:
            key = (name, model_id)
            try:
                if key not in self._logs:
                    self._logs[key] = self._opened(name, model_id)
                    self._log(key, folder.history())
                else:
                    self._log(key, lines)
            except ConfigError:
                raise
            except Exception as failure:  # noqa: BLE001 - no reason to lose hours of training
                said = " ".join(str(failure).split())[:_MOST_FAILURES_TOLD]
                logger.warning(
                    "tracker %s of model %s left out from here on: %s", name, model_id, said
                )
                self._logs[key] = None

    def _opened(self, name: str, model_id: str) -> Log:
        run, config = self._run, self._run.config
        shown = {s: getattr(config, s).model_dump(mode="json") for s in ("model", "training")}
        model = LoggedModel(run.output, model_id, run.training_fingerprint, shown)
        return self._open.enter_context(_tracker(name)(model))

    def _log(self, key: tuple[str, str], lines: Iterable[Mapping[str, Any]]) -> None:
        log = self._logs[key]
        if log is not None:
            for line in lines:
                if (*key, line["epoch"]) not in self._told:
                    self._told.add((*key, line["epoch"]))
                    log(line["epoch"], logged_values(line))


def logged_values(line: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a line of the history: loss, lr, … and ``held_out_recall/<pair>``."""
    plain = {k: v for k, v in line.items() if isinstance(v, int | float) and k != "epoch"}
    recall = line.get("held_out_recall") or {}
    return plain | {f"held_out_recall/{pair}": value for pair, value in recall.items()}
