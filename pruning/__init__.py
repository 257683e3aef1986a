"""What a pruned network is and how each method chooses it."""
