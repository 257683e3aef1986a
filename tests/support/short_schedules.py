"""Options of methods that remove weights or channels while a network trains, for trainings of a few steps."""

EACH_STEP = {"gradual_magnitude": {"every": 1, "end": 1.0}, "rigl": {"every": 1, "end": 1.0}}  # of single weights
CHANNELS_EACH_STEP = {"group_fisher": {"every": 1}}
