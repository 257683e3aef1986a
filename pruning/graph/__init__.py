"""What a network's graph says of its channels: groups, coupling, blocks, norms."""
