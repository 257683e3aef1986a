"""`prune-transfer train-det` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("train-det", *sys.argv[1:]))
