"""Train the reference models that are not trained yet.

``multimem train`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/train.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
