"""What all commands do the same way: --version and --debug, an error in one sentence, an exit code.

It loads no PyTorch, and commands load theirs when their words are understood: `--help` answers at once.
"""

import argparse
import gc
import json
import sys
import sysconfig
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prune_transfer import __version__
from pruning.errors import Failure, Refusal
from study.config.shipped import shipped
from study.stages.store import RunDir
from training.stopping import Stopped, stop_on_signals

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from study.run.scheduler import Outcome


NO_DETECTRON2 = (
    "Detectron2 is not installed, which detectors need and no release of which fits this Python: build upstream's, or"
    " take its Python code by `pip install --no-deps --only-binary=:all: --python-version=3.10 --implementation=cp"
    f" --target={sysconfig.get_path('purelib')} sal-detectron2==0.7.2`"
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the words in one line: the usage of a command is a screen of its own."""

    def error(self, message: str) -> NoReturn:
        message = message.replace("config, key=value", "config")  # of which there may be none
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        near = get_close_matches(unknown.partition("=")[0], self._option_string_actions, n=1)
        hint = f" did you mean {near[0]}?" if unknown.startswith("-") and near else ""
        self.exit(2, f"error: {message};{hint} `{self.prog} --help` shows what there is\n")


def make_parser(
    description: str | None, add: Callable[[argparse.ArgumentParser], None], name: str | None = None
) -> argparse.ArgumentParser:
    """A command's parser: its own words, `--version` and `--debug`; `name`: how it is called."""
    parser = _Parser(prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add(parser)
    parser.add_argument("--version", action="version", version=f"prune-transfer {__version__}")
    parser.add_argument("--debug", action="store_true", default=False, help="show where an error comes from")
    return parser


def add_config(parser: argparse.ArgumentParser, meaning: str, folder: str = "*", nargs: str | None = None) -> None:
    """The word `config`: a path, or the name of a config that is shipped, in `folder` if all others do not fit."""
    names = f", of {', '.join(shipped(folder))}" if folder != "*" else ", such as digits"
    parser.add_argument(
        "config", type=Path, nargs=nargs, help=f"{meaning}: a path, or the name of a shipped one{names}"
    )


def add_keys(parser: argparse.ArgumentParser, schema: str) -> None:
    """`--keys [PART]`, which prints the keys of a config and ends, as `--help` does; `schema`: of SCHEMAS."""

    class PrintKeys(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: str | Sequence[object] | None,
            option_string: str | None = None,
        ) -> None:
            warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, about themselves
            from study.config.keys import in_lines, keys_at  # late: the schema loads PyTorch

            try:
                print(in_lines(keys_at(schema, str(values))))
            except Refusal as error:
                parser.exit(2, f"error: {error}\n")
            parser.exit()

    parser.add_argument(
        "--keys",
        nargs="?",
        const="",
        action=PrintKeys,
        metavar="PART",
        help="print every key of a config, or those of a part such as classifier.train, with its meaning",
    )


def launch(work: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command's work; what is meant for the user becomes one sentence and a non-zero exit code, unless `debug`.

    Anything else is a fault of the program and keeps its traceback. Errors of the system that name a file (it is not
    there, may not be read, the disk is full) are meant for the user too.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, about themselves
    # PyTorch makes millions of objects while it loads, hardly one of them garbage; to look for it after every 700, as
    # Python does by default, is a seventh of the time to a dry run's end
    gc.set_threshold(20_000)
    try:
        with stop_on_signals():
            return work()
    except ModuleNotFoundError as error:
        if debug or error.name != "detectron2":
            raise
        print(f"error: {NO_DETECTRON2}", file=sys.stderr)
        return 2
    except (Refusal, Failure, OSError) as error:
        # "No such file or directory" alone helps nobody: without a name it is treated as a fault of the program
        unnamed = isinstance(error, OSError) and not isinstance(error, Failure) and error.filename is None
        if debug or unnamed:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{stopped}; run the same command to go on where it was", file=sys.stderr)
        return 128 + stopped.signum  # what a shell reports of a process that a signal ended


def finish(out: Path, outcome: "Outcome") -> int:
    """Say what is not done and where everything is; the exit code."""
    for stage, why in {**outcome.failed, **outcome.blocked}.items():
        print(f"not done: {stage}: {why}", file=sys.stderr)
    if RunDir(out).done:
        print(json.dumps(RunDir(out).read_result()["metrics"]))
    print(f"run directory: {out}")
    return 0 if outcome.complete else 1
