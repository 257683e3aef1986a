"""`prune-transfer sensitivity` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("sensitivity", *sys.argv[1:]))
