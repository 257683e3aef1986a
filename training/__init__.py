"""What every training shares: files, checkpoints, schedule, processes, stopping, seeds, device."""

from prune_transfer import __version__ as __version__
