"""The house rules that a machine can hold: sizes, and the calls that have no place here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tenfold"
FILES = sorted(SOURCE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 10

BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "pty", "commands"}
"""They run what they read, or what they are told."""

BANNED_CALLS = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput",
    "os.execv", "os.execve", "os.execvp", "os.execl", "os.spawnv", "os.spawnl",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all",
    "shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile", "torch.hub.load", "joblib.load",
}  # fmt: skip

BANNED_METHODS = {"extractall", "unsafe_load", "full_load"}

SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash", "cmd", "powershell"}

TEMPLATE_GATE = "template_process.py"
"""The one place where a template of a stranger is compiled."""

LOADERS_WITHOUT_A_GATE = {"Tokenizer", "GenerationConfig"}
"""`from_pretrained` of these runs no code of a model: our own, and one that only reads JSON."""


def offences(tree: ast.AST) -> list[str]:
    """What would run data as code."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in BANNED_MODULES]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in full if name.split(".")[0] in BANNED_MODULES or name in BANNED_CALLS]
        elif isinstance(node, ast.Call):
            found += _call_offences(node)
    return found


def _call_offences(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    found = [name] if name in BANNED_CALLS or method in BANNED_METHODS else []
    found += [f"{name}(shell)" for key in ("shell",) if key in keywords and not _is(keywords[key], False)]
    if name == "torch.load" and not _is(keywords.get("weights_only"), True):
        found.append("torch.load without weights_only=True")
    if name in ("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output") and call.args:
        first = call.args[0]
        program = first.elts[0] if isinstance(first, ast.List) and first.elts else first
        if isinstance(program, ast.JoinedStr | ast.BinOp) or (
            isinstance(program, ast.Constant) and program.value in SHELLS
        ):
            found.append(f"{name} of a text or a shell")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    loads = method == "from_pretrained" or (method == "from_config" and owner == "kind")
    if loads and owner not in LOADERS_WITHOUT_A_GATE and not _is(keywords.get("trust_remote_code"), False):
        found.append(f"{name} without trust_remote_code=False")
    if "trust_remote_code" in keywords and not _is(keywords["trust_remote_code"], False):
        found.append(f"{name}(trust_remote_code)")
    return found


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@each_file
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES
    for function in functions(path):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < FUNCTION_LINES, function.name
        arguments = function.args
        count = len(arguments.args) + len(arguments.kwonlyargs) + len(arguments.posonlyargs)
        assert count <= PARAMETERS or function.name == "attend_packed", function.name  # a signature of transformers


@each_file
def test_no_call_that_runs_data_as_code(path: Path) -> None:
    assert offences(ast.parse(path.read_text())) == []


SEEDED = [
    "import pickle",
    "from pickle import loads",
    "import dill as p",
    "from os import system",
    "eval(text)",
    "exec(code)",
    "__import__(name)",
    "os.system('x')",
    "os.popen(x)",
    "subprocess.run(command, shell=True)",
    "subprocess.run(command, shell=wanted)",
    "subprocess.run(f'rm {name}')",
    "subprocess.run(['bash', '-c', text])",
    "torch.load(path)",
    "torch.load(path, weights_only=False)",
    "torch.load(path, weights_only=flag)",
    "yaml.load(text, Loader)",
    "yaml.full_load(text)",
    "archive.extractall(folder)",
    "tarfile.open(path)",
    "AutoConfig.from_pretrained(name)",
    "AutoModel.from_pretrained(name, trust_remote_code=True)",
    "AutoModel.from_pretrained(name, trust_remote_code=recipe.trust)",
    "kind.from_config(config)",
]


@pytest.mark.parametrize("code", SEEDED)
def test_the_ban_sees_what_it_is_for(code: str) -> None:
    assert offences(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "subprocess.run([sys.executable, '-m', name])",
        "AutoConfig.from_pretrained(name, trust_remote_code=False)",
        "pattern.compile(text)",
        "re.compile(text)",
    ],
)
def test_the_ban_lets_through_what_is_safe(code: str) -> None:
    assert not offences(ast.parse(code))


def test_templates_of_strangers_are_compiled_in_one_place() -> None:
    """`from_string` elsewhere is of the package's own pages."""
    uses = {path.name for path in FILES if "from_string(" in path.read_text()}
    assert uses == {TEMPLATE_GATE, "html.py", "plan_html.py"}
    for name in uses - {TEMPLATE_GATE}:
        (path,) = [path for path in FILES if path.name == name]
        assert "autoescape=True" in path.read_text()
