"""`prune-transfer export` of this clone."""

import sys

from prune_transfer import main

if __name__ == "__main__":
    sys.exit(main("export", *sys.argv[1:]))
