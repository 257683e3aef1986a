"""Options of methods that remove weights while a network trains, for trainings of a few steps."""

EACH_STEP = {
    "gradual_magnitude": {"every": 1, "end": 1.0},
    "rigl": {"every": 1, "end": 1.0},
    "group_fisher": {"every": 1},
}
