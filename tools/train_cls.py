"""`prune-transfer train-cls` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("train-cls", *sys.argv[1:]))
