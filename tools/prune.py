"""`prune-transfer prune` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("prune", *sys.argv[1:]))
