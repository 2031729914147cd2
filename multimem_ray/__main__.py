"""``python -m multimem_ray`` is the command ``multimem``."""

from multimem_ray.cli import main

if __name__ == "__main__":
    main()
