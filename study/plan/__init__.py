"""From a config to a graph of stages, with what they cost."""
