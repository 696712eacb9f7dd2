"""``python -m hmgr_jax.serve``."""

import sys

from hmgr_jax.serve.command import main

if __name__ == "__main__":
    sys.exit(main())
