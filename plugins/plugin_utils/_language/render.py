# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a fragment from a template: renders it with the host's variables and reads the text as YAML. Each value has its
line in the template. Private to this collection."""

from __future__ import annotations

import datetime
import difflib
import json
import re
import types
from typing import Any, Callable, NamedTuple, Tuple

import jinja2
import yaml

from .problems import FragmentError, Problem, json_path

Path = Tuple[object, ...]


class Fragment(NamedTuple):
    """The data of one template. ``file``: its name in messages; ``lines``: the line of each value in the template."""

    file: str
    data: dict[str, Any]
    lines: dict[Path, int | None]

    def line(self, path: Path) -> int | None:
        """The line of the value at ``path``, or of the closest value that contains it."""
        for size in range(len(path), -1, -1):
            if path[:size] in self.lines:
                return self.lines[path[:size]]
        return None

    def problem(self, path: Path, found: str, expected: str = "", remedy: str = "") -> Problem:
        """A problem of the value at ``path``."""
        return Problem(self.file, self.line(path), json_path(path), found, expected, remedy)


def fragment(file: str, source: str, renderer: Callable[[str], Any]) -> Fragment:
    """The fragment of a template. ``renderer``: Jinja with the host's variables. Raises FragmentError."""
    return read(file, source, render(file, source, renderer))


def render(file: str, source: str, renderer: Callable[[str], Any]) -> str:
    """The rendered text of a template. Raises FragmentError."""
    try:
        rendered = renderer(source)
    except Exception as error:  # a template can raise any exception
        raise FragmentError([_template_problem(file, source, error)]) from error
    return rendered if isinstance(rendered, str) else json.dumps(rendered, default=str)


def read(file: str, source: str, text: str) -> Fragment:
    """The fragment of a rendered text. Raises FragmentError."""
    places = line_map(source, text)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(file, loader, places)
            data: Any = {} if node is None else reader.read(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = places(mark.line + 1) if mark else None
        found = " ".join(part for part in (error.context, error.problem) if part)
        raise FragmentError([Problem(file, line, "", f"not YAML: {found}", "", _rendered_line(text, mark))]) from error
    except yaml.reader.ReaderError as error:
        line = places(len(text[: error.position].splitlines()) or 1)
        found = f"not YAML: the character U+{ord(text[error.position]):04X}"
        raise FragmentError([Problem(file, line, "", found, "text", "Remove it")]) from error
    except yaml.YAMLError as error:
        raise FragmentError([Problem(file, None, "", f"not YAML: {' '.join(str(error).split())}")]) from error
    if reader.problems:
        raise FragmentError(reader.problems)
    return Fragment(file, data, reader.lines)


def line_map(source: str, rendered: str) -> Callable[[int], int | None]:
    """A function from a line of the rendered text to its line in the template, both counted from 1. The line of output
    that a loop or an expression made is estimated from the unchanged lines around it."""
    before, after = source.splitlines(), rendered.splitlines()
    lines: dict[int, int] = {}
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for index in range(c, d):
            lines[index + 1] = (a + index - c if kind == "equal" else min(a + index - c, max(a, b - 1))) + 1
    return lambda line: lines.get(line, len(before) or None)


def _rendered_line(text: str, mark: yaml.Mark | None) -> str:
    rows = text.splitlines()
    if mark is None or mark.line >= len(rows):
        return ""
    return f"The rendered line is {rows[mark.line].strip()!r}"


def _template_problem(file: str, source: str, error: BaseException) -> Problem:
    line, message, seen = None, "", set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, jinja2.TemplateSyntaxError):
            line, message = current.lineno or line, f"template syntax: {current.message}"
            line = line or _first_use(source, message)
            break
        if isinstance(current, jinja2.UndefinedError) and not message:
            message = f"undefined variable: {current.message}"
            line = _first_use(source, str(current.message))
        line = line or _traced(current.__traceback__)
        current = current.__cause__ or current.__context__
    if not message:
        message = "template: " + " ".join(str(error).split())
    remedy = "Set the variable for this host or give it a default" if "undefined" in message else ""
    return Problem(file, line, "", message, "", remedy)


def _traced(trace: types.TracebackType | None) -> int | None:
    """The template's line at which Jinja raised the exception. Lines of included templates are ignored."""
    line = None
    while trace is not None:
        names = trace.tb_frame.f_globals
        template = names.get("__jinja_template__")
        if template is not None and template.filename in (None, "<template>"):
            line = template.get_corresponding_lineno(trace.tb_lineno)
        elif "__jinja_exception__" in names and trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _first_use(source: str, message: str) -> int | None:
    """The line of the first use of the last name in ``message``. Ansible may detect an error only after rendering, when
    the line is no longer known."""
    quoted = re.findall(r"'([^']+)'", message)
    if not quoted:
        return None
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(source)
    except jinja2.TemplateError:
        return None
    kinds = (jinja2.nodes.Name, jinja2.nodes.Filter, jinja2.nodes.Getattr, jinja2.nodes.Const)
    return min(
        (
            node.lineno
            for node in tree.find_all(kinds)
            if quoted[-1] in (getattr(node, "name", None), getattr(node, "attr", None), getattr(node, "value", None))
        ),
        default=None,
    )


class _Reader:
    """Reads plain data from YAML nodes. A duplicate key is a problem, because PyYAML would silently drop the first."""

    def __init__(self, file: str, loader: yaml.SafeLoader, places: Callable[[int], int | None]) -> None:
        self.file, self.loader, self.places = file, loader, places
        self.lines: dict[Path, int | None] = {}
        self.problems: list[Problem] = []
        self.open: list[yaml.Node] = []  # the nodes that contain the current node
        self.merged: set[yaml.Node] = set()  # an anchor's node is read again for each alias

    def read(self, node: yaml.Node, path: Path) -> object:
        """The value of a node at ``path``, with everything that it contains."""
        line = self.places(node.start_mark.line + 1)
        self.lines.setdefault(path, line)
        if node in self.open:
            self.problems.append(
                Problem(self.file, line, json_path(path), "it contains itself", "", "Replace the alias with its value")
            )
            return None
        self.open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
            return self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.scalar(node)
        finally:
            self.open.pop()

    def scalar(self, node: yaml.Node) -> object:
        """The value of a scalar; a date is text in ISO format."""
        try:
            value = self.loader.construct_object(node)
        except ValueError:  # such as February 31; the schema reports what is expected
            return node.value
        return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """The value of a mapping, with its merge keys applied."""
        if node not in self.merged:
            self.merged.add(node)
            self.check_duplicates(node, path)
            self.loader.flatten_mapping(node)  # `<<` first, so that the mapping's own keys win
        mapping: dict[str, Any] = {}
        for key_node, child in node.value:
            key = _key(key_node)
            self.lines[(*path, key)] = self.places(key_node.start_mark.line + 1)
            mapping[key] = self.read(child, (*path, key))
        return mapping

    def check_duplicates(self, node: yaml.MappingNode, path: Path) -> None:
        """Records a problem for each key that occurs more than once."""
        seen = set()
        for key_node, _child in node.value:
            key = _key(key_node)
            if key in seen:
                line = self.places(key_node.start_mark.line + 1)
                self.problems.append(
                    Problem(
                        self.file, line, json_path((*path, key)), f"duplicate key '{key}'", "", "Remove one of them"
                    )
                )
            seen.add(key)


def _key(node: yaml.Node) -> str:
    """The key as it is written, because YAML would read `on` as true."""
    return node.value if isinstance(node, yaml.ScalarNode) else "?"
