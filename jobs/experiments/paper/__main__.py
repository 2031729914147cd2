"""The tables of the papers: ``python -m jobs.experiments.paper --quick``.

On data of your own, or made for it. Every table comes from trainings in this process, over several
seeds, and stands beside what the papers print; what agrees and what does not is said below it.
Writes ``paper.json`` and ``paper.html``; run again, it goes on where it was. Minutes with
``--quick``, hours without.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from jobs import command
from jobs.experiments.paper.findings import Section
from jobs.experiments.paper.study import DEMO, Data, Size, Study
from jobs.experiments.paper.tables import TABLES
from multimem_ray.demo.dataset import FIELDS as DEMO_FIELDS
from multimem_ray.progress import Progress
from multimem_ray.report.tables import Table, write_page

QUICK = Size(samples=400, epochs=50, batch_size=32, width=8, seeds=2, views=2, models=6)
FULL = Size(samples=2000, epochs=120, batch_size=128, width=16, seeds=5, views=4, models=8)


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minutes, on small trainings")
    parser.add_argument("--out", type=Path, default=Path("paper"), help="folder for everything")
    parser.add_argument("--seeds", type=int, help="seeds of each condition")
    parser.add_argument("--only", nargs="*", choices=sorted(TABLES), help="these tables alone")
    parser.add_argument("--threads", type=int, default=2, help="models that train side by side")
    parser.add_argument("--shards", help="your own shards; default: the demo's, made here")
    parser.add_argument(
        "--fields",
        help="with --shards: modality=field pairs, such as audio=flac,image=png,text=txt; without: "
        "modalities of the demo's that take part, such as audio,text,video",
    )
    parser.add_argument("--label", help="with --shards: field of the class, such as json.label")
    parser.add_argument("--other", help="with --shards: shards of another distribution, held out")
    parser.add_argument("--samples", type=int, help="samples of the demo's shards")
    parser.add_argument("--epochs", type=int, help="of each training")
    asked = parser.parse_args(arguments)
    given = {name: getattr(asked, name) for name in ("seeds", "samples", "epochs")}
    given = {name: number for name, number in given.items() if number is not None}
    size = replace(QUICK if asked.quick else FULL, **given)
    progress = Progress()
    study = Study(asked.out.absolute(), size, progress, asked.threads, _data(parser, asked))
    started = time.monotonic()
    sections: list[Section] = []
    for name in asked.only or TABLES:
        progress.say(f"table: {name}")
        before = time.monotonic()
        sections.append(TABLES[name](study))
        progress.say(f"table: {name} took {time.monotonic() - before:.0f} s")
        _write(asked.out, study, sections, time.monotonic() - started)
    Console().print(f"tables: {asked.out / 'paper.html'}", markup=False)


def _data(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> Data:
    items = asked.fields.split(",") if asked.fields else []
    if asked.shards is None:
        if asked.label or asked.other:
            parser.error("--label and --other go with --shards")
        names = items or list(DEMO.names)
        unknown = [name for name in names if name not in DEMO_FIELDS]
        if unknown:
            known = ", ".join(DEMO_FIELDS)
            parser.error(f"--fields: the demo has {known}, not {', '.join(unknown)}")
        fields = {name: DEMO_FIELDS[name] for name in names}
    else:
        if asked.samples is not None:
            parser.error("--samples is of the demo's shards; all samples of --shards are taken")
        pairs = [item.split("=") for item in items]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            parser.error(f"--shards goes with --fields such as audio=flac,text=txt, not {items}")
        fields = dict(pairs)
    if len(fields) < 2 or len(fields) < len(items):
        parser.error(f"--fields {asked.fields}: name two modalities or more, each once")
    if asked.shards is None:
        return Data(fields=fields)
    return Data(asked.shards, fields, asked.label, asked.other)


def _write(out: Path, study: Study, sections: list[Section], seconds: float) -> None:
    samples = {} if study.data.shards is None else {"samples": None}
    content = {
        "size": asdict(study.size) | samples,
        "data": asdict(study.data),
        "seconds": round(seconds, 1),
        "tables": {section.name: section.as_dict() for section in sections},
    }
    (out / "paper.json").write_text(json.dumps(content, indent=1))
    tables = [t for section in sections for t in (*section.tables, _agreement(section))]
    write_page(str(out / "paper.html"), study.storage, "The papers' tables, at this scale", tables)


def _agreement(section: Section) -> Table:
    rows = [[f.statement, "yes" if f.holds else "no", f.detail] for f in section.findings]
    return Table(f"{section.name}: does it agree?", ["the papers say", "here", "figures"], rows)


if __name__ == "__main__":
    command.run(main)
