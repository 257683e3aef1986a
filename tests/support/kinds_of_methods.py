"""Which methods remove single weights, said once for all tests: what is asked of a method depends on it."""

# Of a network that is there: each prunes at one stroke.
AT_ONCE = ("magnitude", "uniform_weights", "lamp", "snip", "synflow")
# While the network trains, which ends in the pruning behind.
IN_TRAINING = ("gradual_magnitude", "rigl")
# All that leave masks instead of a smaller network.
MASKING = (*AT_ONCE, *IN_TRAINING, "lottery")
