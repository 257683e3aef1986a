"""`prune-transfer runs` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("runs", *sys.argv[1:]))
