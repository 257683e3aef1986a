"""The comparison: stages, pipelines, execution, report."""

import logging
import warnings

# Libraries speak of their own future at import and while they trace; in a log of a study it is noise.
warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", category=UserWarning, message="torch.meshgrid.*")
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
