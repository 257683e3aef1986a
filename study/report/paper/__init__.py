"""The results as a paper has them: LaTeX tables, CSV, figures one column wide, and what to cite."""
