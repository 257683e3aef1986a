"""The comparison: stages, pipelines, execution, report."""
