"""What SECURITY.md promises and no other test shows."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "localism").rglob("*.py"))
# HumanEval's programs have to run: in the sandbox, and nowhere else.
RUNS_PROGRAMS = {"localism/lmeval"}
# Called by their bare names they would execute what they are given.
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


def name_of(node: ast.Call) -> str:
    return ast.unparse(node.func)


def keywords(node: ast.Call) -> dict[str, str]:
    return {keyword.arg or "**": ast.unparse(keyword.value) for keyword in node.keywords}


def executes(node: ast.Call) -> bool:
    """Whether a call runs what it is given as a program, or unpickles it."""
    name, given = name_of(node), keywords(node)
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name == "yaml.load":
        return "Safe" not in given.get("Loader", "")
    is_shell = given.get("shell") == "True" or name in ("os.system", "os.popen")
    return is_shell or name in FORBIDDEN_CALLS


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | named}


def test_nothing_that_is_read_is_executed():
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name_of(node)}"
        for path in SOURCES
        if not any(str(path.relative_to(ROOT)).startswith(room) for room in RUNS_PROGRAMS)
        for node in calls(path)
        if executes(node)
    ]
    assert wrong == []


def test_the_search_for_what_executes_finds_it():
    for text in ("eval(x)", "torch.load(p)", "yaml.load(f)", "run('ls', shell=True)"):
        assert executes(ast.parse(text).body[0].value), text
    for text in (
        "torch.load(p, weights_only=True)",
        "re.compile(x)",
        "yaml.load(f, Loader=yaml.SafeLoader)",
    ):
        assert not executes(ast.parse(text).body[0].value), text


def test_nothing_is_unpickled():
    assert {
        str(path): found for path in SOURCES if (found := imported(path) & FORBIDDEN_MODULES)
    } == {}


def test_the_engines_key_is_in_no_command_line():
    """Others on the machine read command lines in /proc; an environment is its owner's."""
    source = (ROOT / "localism/serving/engine.py").read_text()
    tree = ast.parse(source)
    command = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "command"
    )
    assert "key" not in ast.unparse(command)
    environment = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "environment"
    )
    assert "self.key" in ast.unparse(environment)


@pytest.mark.parametrize(("umask", "others"), [(0o077, 0), (0o027, 0o050)])
def test_files_of_a_run_have_the_rights_of_the_users_umask(tmp_path, umask, others):
    script = (
        "import os, sys; from pathlib import Path; os.umask(int(sys.argv[2]))\n"
        "from localism import recipe, run; from localism.progress import Progress\n"
        "folder = Path(sys.argv[1]); asked = recipe.settle_recipe(folder, None, [])\n"
        "with Progress(plain=True) as progress, run.opened(folder, asked, progress) as context:\n"
        "    context.store.event('note', 'extract'); context.store.flush()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run"), str(umask)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = [path for path in (tmp_path / "run").rglob("*") if not path.is_socket()]
    assert {"corpus.duckdb", "recipe.json", "run.lock"} <= {path.name for path in made}
    for path in made:
        rights = stat.S_IMODE(os.stat(path).st_mode) & 0o077
        assert rights & ~others == 0, (path, oct(rights))


def test_the_socket_of_a_run_answers_its_owner_alone(tmp_path):
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from localism import recipe, run; from localism.progress import Progress\n"
        "folder = Path(sys.argv[1]); asked = recipe.settle_recipe(folder, None, [])\n"
        "with Progress(plain=True) as progress, run.opened(folder, asked, progress):\n"
        "    for path in folder.rglob('*'):\n"
        "        if path.is_socket(): print(oct(path.stat().st_mode & 0o777))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    modes = [int(line, 8) for line in done.stdout.split() if line.startswith("0o")]
    # Whoever connects to a socket needs the right to write to it.
    assert modes and all(mode & 0o022 == 0 for mode in modes), done.stdout
