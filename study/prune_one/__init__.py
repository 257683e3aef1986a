"""One network pruned alone, as tools/prune.py does."""
