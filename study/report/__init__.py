"""The answer of a study, from one dictionary and the run directories: CSV, JSON, Markdown, HTML."""
