"""The tables of the papers on data of your own, or made for it: ``python jobs/paper.py --quick``.

Every table comes from trainings in this process, over several seeds, and stands beside what the
papers print; what agrees and what does not is said below it. Writes ``paper.json`` and
``paper.html``; run again, it goes on where it was. Minutes with ``--quick``, hours without.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from rich.console import Console

from jobs.bench import Bench, Size
from jobs.paper_tables import TABLES, Made
from multimem_ray.mitigation.page import Table, write_page
from multimem_ray.progress import Progress

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
    asked = parser.parse_args(arguments)
    size = QUICK if asked.quick else FULL
    progress = Progress()
    bench = Bench(asked.out.absolute(), size.with_seeds(asked.seeds), progress, asked.threads)
    started = time.monotonic()
    made: list[Made] = []
    for name in asked.only or TABLES:
        progress.say(f"table: {name}")
        before = time.monotonic()
        made.append(TABLES[name](bench))
        progress.say(f"table: {name} took {time.monotonic() - before:.0f} s")
        _write(asked.out, bench, made, time.monotonic() - started)
    Console().print(f"tables: {asked.out / 'paper.html'}", markup=False)


def _write(out: Path, bench: Bench, made: list[Made], seconds: float) -> None:
    content = {
        "size": bench.size.as_dict(),
        "seconds": round(seconds, 1),
        "tables": {one.name: one.as_dict() for one in made},
    }
    (out / "paper.json").write_text(json.dumps(content, indent=1))
    tables = [table for one in made for table in (*one.tables, _agreement(one))]
    write_page(str(out / "paper.html"), bench.storage, "The papers' tables, at this scale", tables)


def _agreement(made: Made) -> Table:
    rows = [[f.statement, "yes" if f.holds else "no", f.detail] for f in made.findings]
    return Table(f"{made.name}: does it agree?", ["the papers say", "here", "figures"], rows)


if __name__ == "__main__":
    main()
