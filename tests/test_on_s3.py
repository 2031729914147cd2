"""Shards and output on S3: training, scoring, commits, summary, report and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from multimem_ray import cli
from multimem_ray.audit import report
from multimem_ray.progress import Progress
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.shard import Scores, score_shard
from multimem_ray.setup import open_run, resolve
from multimem_ray.store.commits import CommitLog
from multimem_ray.store.partitioning import Partitioning
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from tests.s3 import S3Server
from tests.small import small_config, write_shards


def test_an_audit_whose_shards_and_output_are_on_s3(
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket, storage = s3_server.bucket(), s3_server.storage
    for shard in write_shards(tmp_path / "shards").glob("*.tar"):
        storage.write_atomic(f"{bucket}/in/{shard.name}", shard.read_bytes())
    local: dict[str, Any] = small_config(
        tmp_path, tmp_path, "scoring.partition_by=json.source"
    ).model_dump(mode="json")
    local |= {"output": f"{bucket}/out", "storage": s3_server.config.model_dump(mode="json")}
    local["data"]["shards"] = f"{bucket}/in/{{000000..000002}}.tar"
    config = resolve(local)

    run, shards = open_run(config)
    assert [url.rsplit("/", 1)[-1] for url in shards.missing] == ["000002.tar"]
    bank = Bank(run, run.design.model_ids(), torch.device("cpu"), threads=1)
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    members = run.design.members([s.group for s in decoded]).tolist()
    views = run.decoder.views(run.decoder.clean([s.arrays for s in decoded])).samples()
    bank.train_epoch(0, [(v, m, 0.0) for v, m in zip(views, members, strict=True)])
    bank.checkpoint()
    again = Bank(run, run.design.model_ids(), torch.device("cpu"), threads=1)
    assert again.next_epoch == 1
    again.finish()

    log = CommitLog(run.storage, run.output, run.fingerprint, Partitioning.of(config.scoring))
    scorer = ScoringBank(run, torch.device("cpu"))
    held_out = HeldOutStatistics(torch.zeros(2, 3, config.model.dim, dtype=torch.float64))
    for shard in shards.scored:
        found = score_shard(Scores(run, scorer, held_out), shard)
        log.commit(shard, found.receipt, found.scores, found.errors)
    done, todo = log.split(shards.scored)
    assert (len(done), len(todo)) == (2, 0)

    folders = {info.url.split("/")[-2] for info in storage.list(f"{bucket}/out/scores")}
    assert folders <= {f"source=tape-{n}" for n in range(20)}

    summary = report(config, Progress())
    assert summary["coverage"]["agrees"]
    assert summary["coverage"]["samples"] == 40
    assert b"a red thing" in storage.read_bytes(f"{bucket}/out/report.html")

    words = [run.output, "-n", "1", "--json", "--endpoint-url", s3_server.endpoint]
    monkeypatch.setattr("sys.argv", ["multimem", "top", *words])
    with pytest.raises(SystemExit):
        cli.main()
    row = json.loads(capsys.readouterr().out)
    assert row["multimem"] == pytest.approx(summary["scores"]["multimem"]["max"])
