#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes duallora/_abi.py, the declarations of the C interface, from include/duallora/duallora.h.

    python3 tools/generate.py            rewrites duallora/_abi.py
    python3 tools/generate.py --check    exits with 1 and a diff if the file is not what the header says

The C preprocessor expands the header, pycparser parses it. Comments of the header become docstrings. Needed: a C
compiler (cc, or $CC) and pycparser (Debian: python3-pycparser).
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
from typing import Any

from pycparser import c_ast, c_parser

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE.parents[2] / "include" / "duallora" / "duallora.h"
OUTPUT = HERE.parent / "duallora" / "_abi.py"

SCALARS = {
    "size_t": "c_size_t", "int32_t": "c_int32", "int64_t": "c_int64", "uint8_t": "c_uint8", "uint64_t": "c_uint64",
    "float": "c_float", "double": "c_double", "char": "c_char", "dlora_status": "c_int32",
}
# What pycparser needs to know of <stddef.h> and <stdint.h>.
TYPEDEFS = {
    "stddef.h": "typedef unsigned long size_t;\n",
    "stdint.h": "typedef int int32_t; typedef long int64_t; typedef unsigned char uint8_t; typedef unsigned long uint64_t;\n",
}
UNSEEN = ("struct_size", "reserved")
# Written after the header: the sentences of the statuses, which are arguments of a macro.
STATUS_SENTENCES = """
#define DLORA_STATUS_SENTENCE_(name, code, when, action) const char *dlora_sentence_##name = when " " action;
DLORA_STATUS_LIST(DLORA_STATUS_SENTENCE_)
"""


def preprocess(header: pathlib.Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in TYPEDEFS.items():
            (pathlib.Path(folder) / name).write_text(text)
        source = f'#include "{header}"\n' + STATUS_SENTENCES
        command = [os.environ.get("CC", "cc"), "-E", "-P", "-std=c11", "-nostdinc", f"-I{folder}", "-D__attribute__(x)=",
                   "-x", "c", "-"]
        return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


def spelled(node: Any) -> str:
    """The C type of a declaration, as "const float *"."""
    if isinstance(node, c_ast.TypeDecl):
        return " ".join([*node.quals, *node.type.names]) if isinstance(node.type, c_ast.IdentifierType) else "struct"
    if isinstance(node, c_ast.PtrDecl):
        if isinstance(node.type, c_ast.FuncDecl):
            return f"{spelled(node.type.type)} (*)({', '.join(spelled(p.type) for p in node.type.args.params)})"
        inner = spelled(node.type)
        return inner + ("*" if inner.endswith("*") else " *")
    if isinstance(node, c_ast.ArrayDecl):
        return f"{spelled(node.type)}[{node.dim.value}]"
    return spelled(node.type)


def ctype(node: Any, functions: dict[str, str]) -> str:
    """The ctypes type of a declaration. Pointers are addresses, but for text."""
    text = spelled(node)
    if text == "const char *":
        return "c_char_p"
    if text.endswith("*") or "(*)" in text or text in functions:
        return "c_void_p"
    array = re.fullmatch(r"(\w+)\[(\d+)\]", text)
    return f"{SCALARS[array[1]]} * {array[2]}" if array else SCALARS[text]


def camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.removeprefix("dlora_").split("_"))


def cleaned(comment: str) -> str:
    lines = [re.sub(r"^\s*\*? ?", "", line) for line in comment.strip().splitlines()]
    return re.sub(r"\\ref \w+ ", "", re.sub(r"\s+", " ", " ".join(lines)).strip())


class Comments:
    """The header's comments: of a struct or enum, and of their members."""

    def __init__(self, text: str) -> None:
        self.text = text

    def before(self, kind: str, name: str) -> str:
        found = re.search(r"/\*\*((?:(?!\*/).)*)\*/\s*(?:typedef )?" + kind + " " + name + r" \{", self.text, re.S)
        return cleaned(found[1]) if found else ""

    def members(self, kind: str, name: str) -> dict[str, str]:
        body = re.search(kind + " " + name + r" \{(.*?)\n?\}", self.text, re.S)
        found = re.findall(r"(\w+)(?: = [^,/]*)?(?:\[\d+\])?(?:\)\([^;]*\))?[;,]?\s*/\*\*<((?:(?!\*/).)*)\*/", body[1], re.S)
        return {member: cleaned(comment) for member, comment in found}


def docstring(text: str, members: dict[str, str], indent: str) -> list[str]:
    wrap = {"width": 116 - len(indent)}
    lines = textwrap.wrap(text[:1].upper() + text[1:], **wrap) if text else []
    if members:
        lines += [""] if lines else []
        for name, comment in members.items():
            lines += textwrap.wrap(f"{name}: {comment}", subsequent_indent="    ", **wrap)
    lines = [(indent + line.replace("\\", "\\\\")).rstrip() for line in lines]
    if not lines:
        return []
    if len(lines) == 1:
        return [f'{indent}"""{lines[0].strip()}"""']
    return [f'{indent}"""{lines[0].strip()}', *lines[1:], f'{indent}"""']


class Generator:
    def __init__(self, header: pathlib.Path) -> None:
        self.text = header.read_text()
        self.comments = Comments(self.text)
        self.functions: dict[str, Any] = {}
        self.callbacks: dict[str, str] = {}
        self.structs: dict[str, Any] = {}
        self.enums: dict[str, dict[str, int]] = {}
        self.sentences: dict[str, str] = {}
        for node in c_parser.CParser().parse(preprocess(header)).ext:
            self._take(node)

    def _take(self, node: Any) -> None:
        kind = node.type
        if isinstance(kind, c_ast.FuncDecl):
            self.functions[node.name] = kind
        elif isinstance(kind, c_ast.Enum):
            value, values = -1, {}
            for item in kind.values.enumerators:
                value = constant(item.value) if item.value is not None else value + 1
                values[item.name] = value
            self.enums[kind.name] = values
        elif isinstance(node, c_ast.Typedef) and isinstance(kind, c_ast.PtrDecl):
            self.callbacks[node.name] = spelled(kind)
            setattr(self, "callback_" + node.name, kind.type)
        elif isinstance(node, c_ast.Typedef) and isinstance(kind.type, c_ast.Struct) and kind.type.decls:
            self.structs[node.name] = kind.type
        elif node.name and node.name.startswith("dlora_sentence_"):
            self.sentences[node.name.removeprefix("dlora_sentence_")] = re.sub(r'"\s*"', "", node.init.value).strip('"')

    def enum_of(self, struct: str) -> dict[str, str]:
        """Members that hold values of an enum, as their comments say."""
        found = {}
        for member, comment in self.comments.members("struct", struct).items():
            named = re.match(r"(?:one )?enum (dlora_\w+)", comment)
            if named and named[1] in self.enums:
                found[member] = named[1]
        return found

    @property
    def flags(self) -> set[str]:
        """Enums of single bits, whose values are or-ed."""
        return {name for name, values in self.enums.items()
                if len(values) > 2 and all(value > 0 and value & (value - 1) == 0 for value in values.values())}

    @property
    def records(self) -> list[str]:
        """Structs that the library fills, which become records of Python: those that grow, but for options, of which
        programs see keywords. A source of images is read by the library, a site goes both ways."""
        grow = [name for name, struct in self.structs.items() if struct.decls[0].name == "struct_size"]
        return ["dlora_site"] + [name for name in grow if not name.endswith("_options") and name != "dlora_image_source"]

    def output(self) -> str:
        version = [re.search(rf"DLORA_VERSION_{part} (\d+)", self.text)[1] for part in ("MAJOR", "MINOR", "PATCH")]
        lines = [
            "# SPDX-License-Identifier: Apache-2.0",
            '"""Declarations of the C interface. Generated from include/duallora/duallora.h by tools/generate.py: not to',
            'be edited. Pointers are addresses (c_void_p), but for text (c_char_p)."""', "",
            "from __future__ import annotations", "",
            "import ctypes", "import dataclasses", "import enum",
            "from ctypes import c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p",
            "from typing import Any, TypeVar, cast", "",
            f"VERSION = ({', '.join(version)})",
            '_Enum = TypeVar("_Enum", bound=enum.IntEnum)', "", "",
            "def _member(kind: type[_Enum], value: int) -> _Enum:",
            '    """A value of a newer library that the enum does not have stays a number."""',
            "    try:", "        return kind(value)", "    except ValueError:", "        return cast(_Enum, value)", "",
        ]
        for name, values in self.enums.items():
            lines += self.enum(name, values)
        for name, struct in self.structs.items():
            lines += self.struct(name, struct)
        for name in self.records:
            lines += self.record(name, self.structs[name])
        lines += ["", "# Types of callbacks."]
        for name in self.callbacks:
            function = getattr(self, "callback_" + name)
            types = [ctype(parameter.type, self.callbacks) for parameter in function.args.params]
            result = "None" if spelled(function.type) == "void" else ctype(function.type, self.callbacks)
            lines.append(f"{camel(name).removesuffix('Fn')}Callback = ctypes.CFUNCTYPE({', '.join([result, *types])})")
        visitor = self.functions["dlora_inspect"].args.params[1].type.type
        types = [ctype(parameter.type, self.callbacks) for parameter in visitor.args.params]
        lines.append(f"VisitCallback = ctypes.CFUNCTYPE({', '.join([ctype(visitor.type, self.callbacks), *types])})")
        lines += ["", "# Members that hold values of an enum: struct -> member -> enum.",
                  "MEMBER_ENUMS: dict[str, dict[str, type[enum.IntEnum] | type[enum.IntFlag]]] = {"]
        for name in self.structs:
            enums = ", ".join(f'"{member}": {camel(kind)}' for member, kind in self.enum_of(name).items())
            if enums:
                lines.append(f'    "{name}": {{{enums}}},')
        lines += ["}", "", "# Name -> (type of the result, types of the arguments, whether the result is a dlora_status).",
                  "FUNCTIONS: dict[str, tuple[Any, list[Any], bool]] = {"]
        for name, function in self.functions.items():
            parameters = [p.type for p in function.args.params if spelled(p.type) != "void"]
            result = "None" if spelled(function.type) == "void" else ctype(function.type, self.callbacks)
            lines.append(f"    # {spelled(function.type)} {name}({', '.join(spelled(p) for p in parameters)})")
            types = ", ".join(ctype(p, self.callbacks) for p in parameters)
            lines.append(f'    "{name}": ({result}, [{types}], {spelled(function.type) == "dlora_status"}),')
        lines += ["}", ""]
        return "\n".join(lines)

    def enum(self, name: str, values: dict[str, int]) -> list[str]:
        values = {key: value for key, value in values.items() if not key.endswith("_COUNT_")}
        if name == "dlora_status_code":
            # A code of a newer library is a status too; no enum of a fixed set could hold it.
            values = {key.removeprefix("DLORA_"): value for key, value in values.items()}
            members = {key.removeprefix("ERR_"): self.sentences[key] for key in values}
            lines = ["", "class Status(enum.IntEnum):", *docstring("Result of a call.", members, "    ")]
            return lines + [""] + [f"    {key.removeprefix('ERR_')} = {value}" for key, value in values.items()] + [""]
        # DLORA_POOL_CLASS and DLORA_POOL_MEAN_PATCHES: what all have in common, up to an underscore.
        common = os.path.commonprefix(list(values))
        common = common[:common.rfind("_") + 1] if len(values) > 1 else f"DLORA_{name.removeprefix('dlora_').upper()}_"
        single_bits = name in self.flags
        comments = self.comments.members("enum", name)
        members = {key: comments.get(key, "") for key in values}
        short = {key: key.removeprefix(common) if key.startswith(common) else key.removeprefix("DLORA_") for key in values}
        if len(values) == 1:
            short = {key: key.removeprefix("DLORA_").rsplit("_", 1)[-1] for key in values}
        documented = {short[key]: comment for key, comment in members.items() if comment}
        text = self.comments.before("enum", name) or f"Values of DLORA_{name.removeprefix('dlora_').upper()}_..."
        lines = ["", f"class {camel(name)}(enum.{'IntFlag' if single_bits else 'IntEnum'}):"]
        lines += docstring(text, documented, "    ") + [""]
        return lines + [f"    {short[key]} = {value}" for key, value in values.items()] + [""]

    def struct(self, name: str, struct: Any) -> list[str]:
        lines = ["", f"class {name}(ctypes.Structure):", "    _fields_ = ["]
        lines += [f'        ("{member.name}", {ctype(member.type, self.callbacks)}),' for member in struct.decls]
        return [*lines, "    ]", ""]

    def record(self, name: str, struct: Any) -> list[str]:
        enums, members = self.enum_of(name), self.comments.members("struct", name)
        fields, reads = [], []
        for member in struct.decls:
            if member.name in UNSEEN:
                continue
            text, value = spelled(member.type), f"struct.{member.name}"
            if text.startswith("char["):
                kind, value = "str", f"{value}.decode()"
            elif text == "const char *":
                kind, value = "str | None", f"None if {value} is None else {value}.decode()"
            elif text == "const size_t *":
                kind = "tuple[int, ...]"
                value = f"tuple(ctypes.cast({value}, ctypes.POINTER(c_size_t))[:struct.num_dims]) if {value} else ()"
            elif text.startswith("float["):
                kind, value = "tuple[float, ...]", f"tuple({value})"
            elif member.name in enums and enums[member.name] in self.flags:
                kind, value = camel(enums[member.name]), f"{camel(enums[member.name])}({value})"
            elif member.name in enums:
                kind, value = camel(enums[member.name]), f"_member({camel(enums[member.name])}, {value})"
            else:
                kind = "float" if text in ("float", "double") else "int"
            fields.append(f"    {member.name}: {kind}")
            reads.append(f"            {member.name}={value},")
        documented = {m.name: members[m.name] for m in struct.decls if m.name in members and m.name not in UNSEEN}
        text = self.comments.before("struct", name)
        lines = ["", "@dataclasses.dataclass(frozen=True)", f"class {camel(name)}:"]
        lines += docstring(text, documented, "    ") + ["", *fields, "", "    @classmethod",
                 f"    def _of(cls, struct: {name}) -> {camel(name)}:", "        return cls("]
        return lines + [*reads, "        )", ""]


def constant(node: Any) -> int:
    if isinstance(node, c_ast.UnaryOp):
        return -constant(node.expr)
    return int(node.value, 0)


def main() -> int:
    new = Generator(HEADER).output()
    if sys.argv[1:] == ["--check"]:
        old = OUTPUT.read_text()
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "_abi.py", "header"))
        return int(old != new)
    OUTPUT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
