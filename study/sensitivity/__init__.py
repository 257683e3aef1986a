"""How much each layer of one trained classifier loses when it alone is pruned, and nothing is retrained."""
