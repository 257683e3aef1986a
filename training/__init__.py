"""What every training shares: files, checkpoints, schedule, processes, stopping, seeds, device."""
