"""One network pruned alone, as `prune-transfer prune` does."""
