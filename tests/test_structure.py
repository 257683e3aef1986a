"""The rules that a program can check: where imports point, what is never called, how long files get."""

import ast
import re
import sys
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

import prune_transfer
from detect.budgets import BUDGETS
from detect.data.sets import DATASETS
from detect.heads import HEADS
from pruning.methods import METHODS
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES
from study.plan.steps import STEPS

ROOT = Path(__file__).resolve().parent.parent
LAUNCHERS = "tools"
PACKAGES = (*prune_transfer.PACKAGES, LAUNCHERS)  # each may import those before it
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FRONT = ROOT / "prune_transfer.py"
FACES = ("pruning", "classify", "detect", "study")  # whose `__all__` is what users import
ROOMS = ("config", "stages", "plan", "report", "run")  # of study/, each may import those before it
MODULE_LINES = 300
LAUNCHER_LINES = 10
COMMAND_LINES = 70
SAME_DEFAULTS = 5
INSTALLER = ROOT / "tools" / "install.py"
CALLERS = sorted([*MODULES, FRONT, *(ROOT / "benchmarks").rglob("*.py")])


def name_of(path):
    return str(path.relative_to(ROOT))


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(tree):
    """All nodes of a module; found once, since most rules look at all of all modules."""
    return tuple(ast.walk(tree))


def imports(tree):
    """Full names of all that a module imports, in functions too; relative ones stay within a package."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def calls(tree):
    """(dotted name, keyword arguments by name) of each call whose function has a dotted name."""
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            yield ast.unparse(node.func), keywords


def import_faults(tree, package):
    """Imports that point the wrong way, or that only another package may have."""
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    for name in imports(tree):
        top = name.partition(".")[0]
        if top in later or (top == "detectron2" and package != "detect"):
            yield f"imports {name}"


def loading_faults(tree):
    """Ways of reading a file that can run code hidden in it."""
    unsafe = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    yield from (f"imports {name}" for name in imports(tree) if name.partition(".")[0] in unsafe)
    for function, keywords in calls(tree):
        weights_only = keywords.get("weights_only")
        safe = isinstance(weights_only, ast.Constant) and weights_only.value is True
        if function == "torch.load" and not safe:
            yield "calls torch.load without weights_only=True"
        if function in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            yield f"calls {function}, not yaml.safe_load"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_keeps_the_rules(path):
    tree = tree_of(path)
    package = path.relative_to(ROOT).parts[0]
    assert [*import_faults(tree, package), *loading_faults(tree)] == []


def dotted(path):
    """The name by which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def import_graph():
    """Each module of the project with those that it imports, inside functions as well."""
    trees = {dotted(path): tree_of(path) for path in MODULES}
    graph = {}
    for name, tree in trees.items():
        found = set()
        for node in nodes(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:  # of a package's modules, or of a module's names
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {full if full in trees else node.module for full in names}
        graph[name] = {other for other in found if other in trees and other != name}
    return graph


def circles(graph):
    """The sets of modules that import each other, directly or through others."""

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo.extend(new)
        return seen

    reach = {name: reached(name) for name in graph}
    return {frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]}


def room(module):
    """The room of study/ that a module is in, if it is in one of them."""
    parts = module.split(".")
    return parts[1] if parts[0] == "study" and len(parts) > 1 and parts[1] in ROOMS else None


def imports_of_later_rooms(graph):
    """Imports within study/ that point from a room to one that acts later."""
    for name, others in graph.items():
        for other in others:
            if room(name) and room(other) and ROOMS.index(room(other)) > ROOMS.index(room(name)):
                yield f"{name} imports {other}"


def test_no_modules_import_each_other():
    assert circles(import_graph()) == set()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}


def test_rooms_of_the_study_follow_time():
    assert list(imports_of_later_rooms(import_graph())) == []
    later = imports_of_later_rooms({"study.config.load": {"study.plan.steps"}, "study.run.study": {"study.config"}})
    assert list(later) == ["study.config.load imports study.plan.steps"]


def public_definitions(tree):
    """Names of a module's public functions and classes, but for those that a decorator hands to a registry."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            registered = any(".register" in ast.unparse(decorator) for decorator in node.decorator_list)
            yield from () if registered else (node.name,)


def names_used(tree):
    """Every name that the code of a module reads, and those of "module:function" in its strings.

    An import alone is no use: `__init__` may offer a name that nobody takes. What a package offers to users is.
    """
    for node in nodes(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"^[\w.]+:(\w+)$", node.value)


def offered(tree):
    """The names in a module's `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            yield from ast.literal_eval(node.value)


def uncalled(trees, defined_in, faces):
    """Path and name of each public function or class in `defined_in` that no code uses and no face offers."""
    used = Counter(name for tree in trees.values() for name in names_used(tree))
    used.update(name for path in faces for name in offered(trees[path]))
    for path in defined_in:
        yield from (f"{path}: {name}" for name in public_definitions(trees[path]) if not used[name])


def test_every_public_function_has_a_caller_outside_the_tests():
    """Or is part of the face of a package, which is for users. What only a test calls is no part of the program."""
    trees = {name_of(path): tree_of(path) for path in CALLERS}
    defined_in = [name for name in trees if not name.startswith(("tools/", "benchmarks/"))]
    assert list(uncalled(trees, defined_in, [f"{package}/__init__.py" for package in FACES])) == []


def test_function_without_a_caller_is_found():
    code = {
        "a": "def dead(): ...\ndef used(): ...\ndef late(): ...\nclass Offered: ...\n@R.register()\ndef given(): ...",
        "b": "from a import dead, used\nused()\nKIND = 'a:late'\ndef _private(): ...",
        "face": "from a import Offered\n__all__ = ['Offered']",
    }
    trees = {name: ast.parse(text) for name, text in code.items()}
    assert list(uncalled(trees, ["a", "b"], ["face"])) == ["a: dead"]
    assert list(uncalled(trees, ["a"], [])) == ["a: dead", "a: Offered"]


def defaults(trees):
    """(path, class) -> the keys that the class itself declares with a default, each with that default's code."""
    for path, tree in trees.items():
        for node in nodes(tree):
            if isinstance(node, ast.ClassDef):
                keys = [line for line in node.body if isinstance(line, ast.AnnAssign) and line.value is not None]
                yield (path, node.name), {(ast.unparse(key.target), ast.unparse(key.value)) for key in keys}


def declared_twice(trees):
    """Pairs of classes that give many keys of the same names the same defaults: one of them is a second declaration."""
    for (one, mine), (other, theirs) in combinations(defaults(trees), 2):
        if len(mine & theirs) >= SAME_DEFAULTS:
            yield f"{'.'.join(one)} and {'.'.join(other)}: {', '.join(sorted(name for name, _ in mine & theirs))}"


def test_no_knob_is_declared_twice():
    """A second declaration of its default is one that somebody forgets to change; derive a class, or hold the other."""
    trees = {name_of(path): tree_of(path) for path in MODULES}
    assert list(declared_twice(trees)) == []


def test_second_declaration_of_knobs_is_found():
    section = "class Pruning(Section):\n ratio: Ratio = 0.5\n level: Level = 'layer'\n scope: Scope = 'inner'\n"
    plain = "@dataclass\nclass Selection:\n ratio: float = 0.5\n level: str = 'layer'\n scope: str = 'inner'\n"
    more = " skip: tuple = ()\n round_to: int = 1\n"
    other = " skip: tuple = ()\n round_to: int = 8\n"  # the same name for another knob
    twice = declared_twice({"a": ast.parse(section + more), "b": ast.parse(plain + more)})
    assert list(twice) == ["a.Pruning and b.Selection: level, ratio, round_to, scope, skip"]
    assert list(declared_twice({"a": ast.parse(section + more), "b": ast.parse(plain + other)})) == []
    assert list(declared_twice({"a": ast.parse(section + more + "class More(Pruning):\n new: int = 1")})) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_has_a_size_and_a_name_of_its_own(path):
    launcher = path.parent.name == LAUNCHERS and path != INSTALLER
    limit = LAUNCHER_LINES if launcher else COMMAND_LINES if path.parent.name == "commands" else MODULE_LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit
    assert path.stem not in ("utils", "common", "misc", "helpers")


LITERATURE = "study/report/claims"  # published numbers and statements, which are about methods and routes by name
# what there is by name -> its names, and where they may stand in quotes: the registry and what it takes from
BY_NAME = {
    # `random` is also how a network starts
    "method": (METHODS.keys() - {"random"}, ("pruning/methods", LITERATURE)),
    # `digits` is a classification data set too
    "detection data set": (DATASETS.keys(), ("detect/data/sets", "classify/data/__init__.py")),
    # `fpn`, the default, is a part of a detector too
    "head": (HEADS.keys() - {"fpn"}, ("detect/heads.py",)),
    "budget": (BUDGETS.keys(), ("detect/budgets.py",)),
    # many pipelines are called after the step that tells them apart
    "pipeline": ({*PIPELINES, *CLASSIFIER_PIPELINES} - STEPS.keys(), ("study/plan/named.py", LITERATURE)),
}


def quoted(trees, names, allowed):
    """Path and name of each string that is one of the names, outside the places where they are allowed."""
    for path, tree in trees.items():
        if not path.startswith(allowed):
            for node in nodes(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
                    yield f"{path}: {node.value}"


@pytest.mark.parametrize("what", BY_NAME)
def test_to_add_one_takes_its_own_file_and_a_line_of_the_registry(what):
    """Whoever asks for a thing by its name is one more place to change."""
    trees = {name_of(path): tree_of(path) for path in MODULES}
    names, allowed = BY_NAME[what]
    assert names and list(quoted(trees, names, allowed)) == []


def test_the_report_asks_for_no_pipeline_but_where_it_is_about_one():
    trees = {name_of(p): tree_of(p) for p in (ROOT / "study" / "report").rglob("*.py")}
    about = (LITERATURE, "study/report/analyses/tickets.py", "study/report/analyses/recalibration.py")
    assert list(quoted(trees, {*PIPELINES, *CLASSIFIER_PIPELINES}, about)) == []


def test_a_name_in_quotes_is_found():
    code = {"a/own.py": "X = {'thinet': 1}", "b.py": "if name == 'thinet': ...", "c.py": "thinet = 'a thinet'"}
    trees = {path: ast.parse(text) for path, text in code.items()}
    assert list(quoted(trees, {"thinet"}, ("a/",))) == ["b.py: thinet"]


def test_installer_needs_the_standard_library_only():
    """It runs before anything is installed; that is also why it is not a launcher of a few lines."""
    tree = tree_of(INSTALLER)
    assert [name for name in imports(tree) if name.partition(".")[0] not in sys.stdlib_module_names] == []


def test_what_says_that_a_package_is_hidden_needs_none_of_them():
    tree = tree_of(FRONT)
    others = [name for name in imports(tree) if name.partition(".")[0] not in sys.stdlib_module_names]
    assert others == ["study.commands.main"]  # once all packages are known to be there


@pytest.mark.parametrize(
    ("package", "code", "fault"),
    [
        ("pruning", "import classify.models", "imports classify.models"),
        ("classify", "def late():\n    from detect.build import build", "imports detect.build"),
        ("study", "import tools", "imports tools"),
        ("study", "from detectron2.config import get_cfg", "imports detectron2.config"),
    ],
)
def test_import_in_the_wrong_direction_is_found(package, code, fault):
    assert list(import_faults(ast.parse(code), package)) == [fault]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_unsafe_loading_is_found(code):
    assert len(list(loading_faults(ast.parse(code)))) == 1


def test_permitted_code_has_no_faults():
    code = "import pruning.plan, detectron2.config\ntorch.load(path, weights_only=True)\nyaml.safe_load(text)"
    tree = ast.parse(code)
    assert [*import_faults(tree, "detect"), *loading_faults(tree)] == []
