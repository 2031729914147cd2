"""What one node of a cluster wrote must be seen by the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.distributed.executor import LOCAL, LocalExecutor
from multimem_ray.errors import ConfigError
from multimem_ray.setup.shared_disk import require_shared
from tests.small import small_run


class OtherNode(LocalExecutor):
    """An executor with another node, which sees what it is told to see."""

    def __init__(self, hidden: str) -> None:
        super().__init__()
        self._hidden = hidden

    def elsewhere(self, function: Callable[[], Any]) -> Any:
        return {path: None if self._hidden in path else size for path, size in function().items()}


def test_a_disk_that_others_do_not_see_is_refused(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    Path(run.output).mkdir(exist_ok=True)
    Path(run.path("run.json")).write_text("{}")
    require_shared(run, shards, LOCAL)
    require_shared(run, shards, OtherNode("nothing hidden"))
    with pytest.raises(ConfigError, match=r"output: .*run\.json lies on this node's own disk"):
        require_shared(run, shards, OtherNode("run.json"))
    with pytest.raises(ConfigError, match=r"data\.shards: .*\.tar lies on this node's own disk"):
        require_shared(run, shards, OtherNode(".tar"))
