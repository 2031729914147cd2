"""Write the embeddings of every sample under every trained model.

``multimem embed`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/embed.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "embed")
    main()
