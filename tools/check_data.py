"""`prune-transfer check-data` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("check-data", *sys.argv[1:]))
