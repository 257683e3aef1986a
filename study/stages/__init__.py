"""A stage and its kinds: what is trained, pruned and evaluated."""
