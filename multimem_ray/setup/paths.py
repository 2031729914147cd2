"""Local paths of a configuration made absolute: workers run in folders of their own."""

from __future__ import annotations

from pathlib import Path

from multimem_ray.config import Config, GivenModel
from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage

_JOB_FOLDER = "working_dir_files"
"""Where Ray unpacks the working directory of a job, below its session's folder."""


def absolute(config: Config, storage: Storage) -> Config:
    """The configuration with local folders made absolute: workers run in folders of their own."""
    cache = str(Path(config.resources.cache_dir).expanduser().absolute())
    resources = config.resources.model_copy(update={"cache_dir": cache})
    output = absolute_url(config.output, storage)
    if _JOB_FOLDER in Path(output).parts and not storage.is_remote(output):
        raise ConfigError(
            f"output: {config.output} lies in the package folder of a Ray job, which Ray deletes; "
            "write an absolute path on a disk that all nodes share, or s3://bucket/folder"
        )
    model = config.model.model_copy(
        update={
            "adapter": config.model.adapter and _absolute_adapter(config.model.adapter),
            "init": config.model.init and absolute_url(config.model.init, storage),
        }
    )
    mitigation = config.mitigation.model_copy(
        update={
            name: place and absolute_url(place, storage)
            for name, place in (
                ("references", config.mitigation.references),
                ("samples", config.mitigation.samples),
            )
        }
    )
    given = [_absolute_given(item, storage) for item in config.design.given]
    target = config.design.target and _absolute_target(config.design.target, storage)
    placed: dict[str, object] = {"given": given, "target": target}
    if config.design.group is not None and config.design.group.endswith(".parquet"):
        placed["group"] = absolute_url(config.design.group, storage)
    design = config.design.model_copy(update=placed)
    return config.model_copy(
        update={
            "output": output,
            "resources": resources,
            "model": model,
            "design": design,
            "mitigation": mitigation,
        }
    )


def _absolute_target(target: GivenModel, storage: Storage) -> GivenModel:
    """A folder is taken with the architecture that is written down in it, not with the run's."""
    folder = absolute_url(target.checkpoint, storage)
    if (Path(folder) / "config.json").exists():
        target = target.model_copy(update={"checkpoint": f"local:{folder}"})
    return _absolute_given(target, storage)


def _absolute_given(given: GivenModel, storage: Storage) -> GivenModel:
    members = given.members
    if members not in {"all", "none", "recorded"}:
        members = absolute_url(members, storage)
    checkpoint = _absolute_checkpoint(given.checkpoint, storage)
    return given.model_copy(update={"checkpoint": checkpoint, "members": members})


def _absolute_checkpoint(checkpoint: str, storage: Storage) -> str:
    from multimem_ray.models.adapters import absolute_adapter, is_adapter

    if is_adapter(checkpoint):
        return absolute_adapter(checkpoint)
    return absolute_url(checkpoint, storage)


def _absolute_adapter(name: str) -> str:
    # Adapters import torch, which takes the driver seconds; most runs have none.
    from multimem_ray.models.adapters import absolute_adapter

    return absolute_adapter(name)


def absolute_url(url: str, storage: Storage) -> str:
    if storage.is_remote(url):
        return url
    return str(Path(url.removeprefix("file://")).expanduser().absolute())
