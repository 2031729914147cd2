"""Measure how useful the trained models are, on held-out samples.

``multimem evaluate`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/evaluate.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
