"""Networks designed from patterns that pruning found."""
