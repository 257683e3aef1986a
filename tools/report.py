"""`prune-transfer report` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("report", *sys.argv[1:]))
