"""The commands of `prune-transfer`, a module each; its docstring is what `--help` says first."""
