"""`prune-transfer COMMAND ...`: which commands there are, and the one that is asked for."""

from collections.abc import Sequence
from textwrap import fill
from types import ModuleType
from typing import NoReturn

from prune_transfer import __version__
from pruning.errors import Refusal
from study.commands import check_data, export, predict, prune, report, run, runs, sensitivity, train_cls, train_det
from study.run.launch import launch, make_parser

COMMANDS: dict[str, ModuleType] = {
    "run": run,
    "train-cls": train_cls,
    "train-det": train_det,
    "sensitivity": sensitivity,
    "prune": prune,
    "export": export,
    "predict": predict,
    "report": report,
    "check-data": check_data,
    "runs": runs,
}


def run_command(words: Sequence[str]) -> int:
    """Run the command that the first word names with the others; the exit code."""
    name, *others = words or [""]
    if name in COMMANDS:
        command = COMMANDS[name]
        parser = make_parser(command.__doc__, command.add_arguments, f"prune-transfer {name}")
        arguments = parser.parse_intermixed_args(others)  # overrides may stand between options
        return launch(lambda: command.main(arguments), debug=arguments.debug)
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(f"prune-transfer {__version__}")
    else:
        return launch(lambda: _refuse(name))
    return 0


def overview() -> str:
    """Every command in a line."""
    firsts = {name: str(command.__doc__).splitlines()[0] for name, command in COMMANDS.items()}
    lines = [fill(text, 80, initial_indent=f"  {name:12}", subsequent_indent=" " * 14) for name, text in firsts.items()]
    return "\n".join(
        [
            "usage: prune-transfer COMMAND ... [--debug]",
            "",
            "Which route to a pruned detector is best? Prune, train from scratch and",
            "transfer, compared on one budget.",
            "",
            *lines,
            "",
            "`prune-transfer COMMAND --help` says more; `prune-transfer run digits` is a study",
            "to begin with.",
        ]
    )


def _refuse(name: str) -> NoReturn:
    if not name:
        raise Refusal(f"a command is missing: {', '.join(COMMANDS)}; `prune-transfer --help` says what each does")
    from training.type_words import did_you_mean  # late: it loads pydantic, which --help need not

    raise Refusal(f"unknown command {name!r}; {did_you_mean(name, COMMANDS)}choose from {', '.join(COMMANDS)}")
