# SPDX-License-Identifier: Apache-2.0
"""The declarations of the package are those of the header, of the library and of the compiler."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import PACKAGE, ROOT

from duallora import _abi
from duallora._library import library

HEADER = ROOT / "include" / "duallora" / "duallora.h"
CC = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler")
STRUCTS = {name: kind for name, kind in vars(_abi).items()
           if isinstance(kind, type) and issubclass(kind, ctypes.Structure)}


def generator():
    pytest.importorskip("pycparser", reason="no pycparser (Debian: python3-pycparser)")
    sys.path.insert(0, str(PACKAGE / "tools"))
    try:
        import generate
    finally:
        sys.path.pop(0)
    return generate


def compiled(tmp_path, lines):
    """What a C program prints that includes the header."""
    source, program = tmp_path / "program.c", tmp_path / "program"
    text = ["#include <stddef.h>", "#include <stdio.h>", '#include "duallora/duallora.h"', "int main(void) {", *lines,
            "return 0; }"]
    source.write_text("\n".join(text))
    subprocess.run([CC, "-std=c11", f"-I{ROOT / 'include'}", str(source), "-o", str(program)], check=True)
    return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


@needs_compiler
def test_the_declarations_are_generated_from_the_header():
    generate = generator()
    assert generate.Generator(HEADER).output() == generate.OUTPUT.read_text(), "run tools/generate.py, or tests/abi/update.sh"


@needs_compiler
@pytest.mark.parametrize("old, new", [
    (r"  size_t depth; [^\n]*\n", ""),
    (r"  size_t depth; ", "  int32_t depth; "),
    (r"  float mean\[3\]; ([^\n]*)\n  float std\[3\]; ", r"  float std[3]; \1\n  float mean[3]; "),
    (r"  float mean\[3\]; ", "  float mean[4]; "),
    (r"DLORA_PHASE_TRAIN = 1", "DLORA_PHASE_TRAIN = 5"),
    (r"DLORA_PHASE_EVALUATE = 3 ", "DLORA_PHASE_EVALUATE = 3, DLORA_PHASE_OTHER = 4 "),
    (r"DLORA_API size_t dlora_bank_num_sites\(const dlora_bank \*bank\);", ""),
    (r"DLORA_API size_t dlora_bank_num_sites", "DLORA_API uint64_t dlora_bank_num_sites"),
    (r"dlora_predictor_set_temperature\(dlora_predictor \*predictor, float", "dlora_predictor_set_temperature(dlora_predictor *predictor, double"),
    (r"dlora_model_embed\(const dlora_model \*model,", "dlora_model_embed(dlora_model *model,"),
    (r"#define DLORA_VERSION_MAJOR \d+", "#define DLORA_VERSION_MAJOR 70"),
    (r"\*dlora_progress_fn\)\(const dlora_progress \*progress,", "*dlora_progress_fn)(int32_t progress,"),
    (r"X\(ERR_NUMERIC, 11,", "X(ERR_NUMERIC, 12,"),
])
def test_every_difference_is_seen(tmp_path, old, new):
    generate = generator()
    text, count = re.subn(old, new, HEADER.read_text(), count=1)
    assert count == 1
    changed = tmp_path / "duallora.h"
    changed.write_text(text)
    assert generate.Generator(changed).output() != generate.OUTPUT.read_text()


@needs_compiler
def test_offsets_and_sizes_are_the_compilers(tmp_path):
    members = [(name, field[0]) for name, kind in STRUCTS.items() for field in kind._fields_]
    lines = [f'printf("%zu\\n", sizeof({name}));' for name in STRUCTS]
    lines += [f'printf("%zu %zu\\n", offsetof({s}, {m}), sizeof((({s} *)0)->{m}));' for s, m in members]
    expected = [str(ctypes.sizeof(kind)) for kind in STRUCTS.values()]
    expected += [f"{getattr(STRUCTS[s], m).offset} {getattr(STRUCTS[s], m).size}" for s, m in members]
    assert compiled(tmp_path, lines) == expected
    assert len(STRUCTS) > 15 and len(members) > 100


@needs_compiler
def test_constants_are_the_compilers(tmp_path):
    enums = generator().Generator(HEADER).enums
    names = [name for values in enums.values() for name in values]
    values = [str(value) for values in enums.values() for value in values.values()]
    assert compiled(tmp_path, [f'printf("%d\\n", (int){name});' for name in names]) == values
    assert len(names) > 60


def test_every_function_of_the_header_is_declared_and_exported():
    declared = set(re.findall(r"DLORA_API [^;(]*?(dlora_\w+)\(", HEADER.read_text()))
    assert declared == set(_abi.FUNCTIONS)
    for name in declared:
        assert getattr(library.cdll, name)


def test_every_function_is_used_by_the_package():
    used = {name for path in pathlib.Path(_abi.__file__).parent.glob("*.py") if path.name != "_abi.py"
            for name in re.findall(r"(?:library|cdll)\.(?:dlora_)?(\w+)", path.read_text())}
    unused = {name.removeprefix("dlora_") for name in _abi.FUNCTIONS} - used
    # Structs that the library fills are made with their size set; statuses are an enum.
    assert {name for name in unused if not name.endswith("_init")} == {"status_name"}


def test_every_struct_that_knows_its_size_has_the_librarys_size():
    # An init function refuses sizes that no version has, and fills the struct up to its end.
    for name, kind in STRUCTS.items():
        init = _abi.FUNCTIONS.get(f"{name}_init")
        if init is None:
            continue
        struct = kind()
        getattr(library, f"{name}_init".removeprefix("dlora_"))(ctypes.byref(struct), ctypes.sizeof(struct))
        assert struct.struct_size == ctypes.sizeof(kind)


def test_the_versions_agree():
    import duallora
    text = (PACKAGE / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"$', text, re.M)[1] == duallora.__version__
    assert duallora.version().split(".")[:2] == duallora.__version__.split(".")[:2]
    assert "BLAS" in duallora.build_info() or "BLIS" in duallora.build_info()


STUB = """
const char *dlora_version(void) { return "%s"; }
%s
"""


def imported_with(library_path):
    environment = {**os.environ, "DUALLORA_LIBRARY": str(library_path)}
    return subprocess.run([sys.executable, "-c", "import duallora"], env=environment, capture_output=True, text=True)


@needs_compiler
@pytest.mark.parametrize("version, words", [
    ("2.0.0", "has version 2.0.0"), ("0.1.0", "has version 0.1.0"), (None, "is not libduallora"),
    (".".join(map(str, _abi.VERSION)), "has no function"),
])
def test_a_library_of_another_interface_is_refused(tmp_path, version, words):
    source, stub = tmp_path / "stub.c", tmp_path / "libstub.so"
    source.write_text("int nothing;\n" if version is None else STUB % (version, ""))
    subprocess.run([CC, "-shared", "-fPIC", str(source), "-o", str(stub)], check=True)
    run = imported_with(stub)
    assert run.returncode != 0 and "LibraryVersionError" in run.stderr and words in run.stderr, run.stderr
    assert str(stub) in run.stderr


def test_a_library_that_is_not_there_is_named():
    run = imported_with("/nonexistent/libduallora.so")
    assert run.returncode != 0 and "ImportError" in run.stderr and "/nonexistent/libduallora.so" in run.stderr
    assert "DUALLORA_LIBRARY" in run.stderr


def test_the_package_is_typed():
    assert (pathlib.Path(_abi.__file__).parent / "py.typed").exists()


def test_help_is_readable():
    import pydoc

    import duallora
    for kind in (duallora.Learner, duallora.Model, duallora.Bank, duallora.Projector, duallora.Predictor, duallora.Session):
        assert kind.__doc__
        text = pydoc.render_doc(kind, renderer=pydoc.plaintext)
        assert "ctypes" not in text
        for name, member in vars(kind).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert pydoc.getdoc(member), f"{kind.__name__}.{name} has no docstring"
    assert "float32 [n, embed_dim]" in pydoc.getdoc(duallora.Model.embed)


def test_mypy_finds_nothing():
    mypy = shutil.which("mypy")
    if mypy is None and subprocess.run([sys.executable, "-m", "mypy", "--version"], capture_output=True).returncode:
        pytest.skip("no mypy (Debian: mypy)")
    command = [mypy] if mypy else [sys.executable, "-m", "mypy"]
    run = subprocess.run([*command, "--no-error-summary", "--cache-dir=/dev/null"], cwd=PACKAGE,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
