"""Score the shards that are not scored yet, by models that are trained.

``multimem score`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/score.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "score")
    main()
