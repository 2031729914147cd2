"""Shards, under the models of a run, as the source of what is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from multimem_ray.distributed.executor import Executor, Row
from multimem_ray.errors import SampleError
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from multimem_ray.sample import Sample


@dataclass(frozen=True)
class ShardSource:
    """Shards, and the models of a run."""

    run: Run
    splits: ClassVar[bool] = True

    def prepare(self, progress: Progress, executor: Executor) -> None:
        """Nothing is."""

    def clear(self) -> None:
        """Nothing was."""

    def held_out_of(self, url: str) -> tuple[list[str], list[str]]:
        run, balance = self.run, self.run.config.held_out.balance
        keys, labels = list[str](), list[str]()
        for item in run.read(url):
            if not isinstance(item, Sample):
                continue
            try:
                if run.held_out_rule.is_held_out([run.group(item)], url)[0]:
                    labels.append(str(item.field(balance)) if balance else "")
                    keys.append(item.key)
            except SampleError:
                continue
        return keys, labels

    def scorer(self) -> Callable[[Row], Row]:
        from multimem_ray.scoring.actor import ShardScorer

        return ShardScorer(self.run)
