"""The held-out set of a run under its models, as scoring kept it."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.numpy import load

from multimem_ray.errors import StorageError
from multimem_ray.own_files import HELD_OUT_AGAIN, read_own
from multimem_ray.storage import Storage
from multimem_ray.store.names import means_file
from multimem_ray.verdict.attack import Population


def stored_population(output: str, storage: Storage) -> Population | None:
    """The held-out set of a run under its models; None where an earlier version summed it up.

    Raises:
        StorageError: Its file is damaged.
    """
    summary = storage.join(output, "held_out", "held_out.json")
    known = read_own(storage, summary, HELD_OUT_AGAIN) if storage.exists(summary) else {}
    url = storage.join(output, "held_out", means_file(known))
    if not storage.exists(url):
        return None
    try:
        return Population.from_arrays(load(storage.read_bytes(url)))
    except (SafetensorError, ValueError) as error:
        raise StorageError(
            f"{url}: damaged ({error}); remove {storage.join(output, 'held_out')}, and the next "
            "audit embeds the held-out set again"
        ) from error
