"""``python -m hmgr_jax.search``."""

import sys

from hmgr_jax.search.command import main

if __name__ == "__main__":
    sys.exit(main())
