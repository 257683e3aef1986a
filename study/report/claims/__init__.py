"""The literature's statements, tested on what was run."""
