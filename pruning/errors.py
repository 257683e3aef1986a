"""The errors that are meant for the user. Every other one is a fault of the program, or of a library.

The launchers show these as their one sentence, and all others with their traceback.
"""


class Refusal(ValueError):
    """What was asked cannot be done; the message is one sentence that says why, and what can be."""


class Failure(RuntimeError):
    """What was begun could not be finished; the message is one sentence that says what is lost, and what to do."""


class Diverged(Failure, FloatingPointError):
    """A training whose loss, boxes or scores are no longer finite."""
