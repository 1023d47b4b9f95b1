"""`python -m sweeps.tracking RUN_FOLDER` follows a running sweep; `sweeps run` starts it."""

import sys

from sweeps.tracking.follow import main

if __name__ == "__main__":
    sys.exit(main())
