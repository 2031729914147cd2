"""Memory across modalities: ``python -m jobs.experiments.personas --quick``.

Facts about invented people are learned through one modality and asked for through another, after
arXiv 2506.05198, which did so with generative models. The training data have *meetings*, a
person's face with its voice, and *facts*, a face (or a voice) with a sentence that nothing but
memory connects with it. A model knows a fact if a new picture of the face, or a new recording of
the voice, finds the person's sentence among those of all people it was trained on:

    source   through the modality that facts were told by
    target   through the other one, which the model has only met along with the source
    gap      source minus target, person by person

Models of complementary halves know other people each, so that the same data give chance level
(people that a model never met), and MultiMem of every sample. Writes ``personas.json`` and
``personas.html``; run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs import command
from jobs.experiments.personas.study import FULL, QUICK, run_all
from multimem_ray.progress import Progress


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments, run what is not done, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minutes, on small trainings")
    parser.add_argument("--out", type=Path, default=Path("personas"), help="folder for everything")
    parser.add_argument("--threads", type=int, default=2, help="models that train side by side")
    asked = parser.parse_args(arguments)
    run_all(asked.out.absolute(), QUICK if asked.quick else FULL, Progress(), asked.threads)


if __name__ == "__main__":
    command.run(main)
