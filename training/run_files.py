"""Names of the files of a run directory that packages below `study` read; `study.stages.store` has the others."""

PLAN = "plan.json"
WEIGHTS = "weights.safetensors"
RESULT = "result.json"
NORMALIZATION = "prune_transfer_normalization"  # in the header of weights: mean and std of the network's input
