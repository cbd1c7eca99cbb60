# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A template becomes a fragment: rendered with the host's variables, read as YAML, each value with its line in the
template. Private to this collection."""

from __future__ import annotations

import datetime
import difflib
import json
import re
from typing import Any, Callable, NamedTuple, Tuple

import jinja2
import yaml

from .problems import FragmentErrors, Problem, json_path

Path = Tuple[object, ...]


class Fragment(NamedTuple):
    file: str  # as in messages
    data: dict[str, Any]
    lines: dict[Path, int]  # place in the data -> line in the template

    def line(self, path: Path) -> int | None:
        """Of the value, or of the nearest that holds it."""
        for size in range(len(path), -1, -1):
            if path[:size] in self.lines:
                return self.lines[path[:size]]
        return None

    def problem(self, path: Path, found: str, expected: str = "", remedy: str = "") -> Problem:
        return Problem(self.file, self.line(path), json_path(path), found, expected, remedy)


def fragment(file: str, source: str, renderer: Callable[[str], Any]) -> Fragment:
    """Raises FragmentErrors. ``renderer``: Jinja with the host's variables."""
    return read(file, source, render(file, source, renderer))


def render(file: str, source: str, renderer: Callable[[str], Any]) -> str:
    """The template's text for a host. Raises FragmentErrors."""
    try:
        rendered = renderer(source)
    except Exception as error:  # whatever a template of the operator's does
        raise FragmentErrors([_template_problem(file, source, error)]) from error
    return rendered if isinstance(rendered, str) else json.dumps(rendered, default=str)


def read(file: str, source: str, text: str) -> Fragment:
    """What a template was rendered to, as data. Raises FragmentErrors."""
    places = line_map(source, text)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(file, loader, places)
            data = {} if node is None else reader.read(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = places(mark.line + 1) if mark else None
        found = " ".join(part for part in (error.context, error.problem) if part)
        raise FragmentErrors([Problem(file, line, "", f"not YAML: {found}", "", _shown(text, mark))]) from error
    except yaml.reader.ReaderError as error:
        line = places(len(text[: error.position].splitlines()) or 1)
        found = f"not YAML: the character U+{ord(text[error.position]):04X}"
        raise FragmentErrors([Problem(file, line, "", found, "text", "Take it out")]) from error
    except yaml.YAMLError as error:
        raise FragmentErrors([Problem(file, None, "", f"not YAML: {' '.join(str(error).split())}")]) from error
    if reader.problems:
        raise FragmentErrors(reader.problems)
    return Fragment(file, data, reader.lines)


def line_map(source: str, rendered: str) -> Callable[[int], int | None]:
    """From a line of what was rendered to the line of the template it came from, both from 1; a line that a loop or
    an expression made is put where the unchanged lines around it leave room."""
    before, after = source.splitlines(), rendered.splitlines()
    lines: dict[int, int] = {}
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for index in range(c, d):
            lines[index + 1] = (a + index - c if kind == "equal" else min(a + index - c, max(a, b - 1))) + 1
    return lambda line: lines.get(line, len(before) or None)


def _shown(text: str, mark) -> str:
    rows = text.splitlines()
    if mark is None or mark.line >= len(rows):
        return ""
    return f"It was rendered to: {rows[mark.line].strip()!r}"


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


def _traced(trace) -> int | None:
    """The line of the template itself at which Jinja raised; not of one that it includes."""
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
    """Where the name that a message ends with stands first: Ansible may notice after rendering, without a line."""
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
    """Plain data from YAML nodes. Keys that stand twice are errors: the first would be lost without a word."""

    def __init__(self, file: str, loader: yaml.SafeLoader, places) -> None:
        self.file, self.loader, self.places = file, loader, places
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self.open: list[yaml.Node] = []  # what is being read
        self.merged: set[yaml.Node] = set()  # an anchor is read once more for each of its aliases

    def read(self, node: yaml.Node, path: Path) -> Any:
        line = self.places(node.start_mark.line + 1)
        self.lines.setdefault(path, line)
        if node in self.open:
            self.problems.append(Problem(self.file, line, json_path(path), "it contains itself", "", "Write it out"))
            return None
        self.open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
            return self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.scalar(node)
        finally:
            self.open.pop()

    def scalar(self, node: yaml.Node) -> Any:
        try:
            value = self.loader.construct_object(node)
        except ValueError:  # such as the 31st of February; the schema says what is expected
            return node.value
        return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        if node not in self.merged:
            self.merged.add(node)
            self.twice(node, path)
            self.loader.flatten_mapping(node)  # `<<` first, so that the mapping's own keys win
        found: dict[str, Any] = {}
        for key_node, child in node.value:
            key = _key(key_node)
            self.lines[(*path, key)] = self.places(key_node.start_mark.line + 1)
            found[key] = self.read(child, (*path, key))
        return found

    def twice(self, node: yaml.MappingNode, path: Path) -> None:
        seen = set()
        for key_node, _child in node.value:
            key = _key(key_node)
            if key in seen:
                line = self.places(key_node.start_mark.line + 1)
                self.problems.append(
                    Problem(self.file, line, json_path((*path, key)), f"'{key}' stands twice", "", "Keep one of them")
                )
            seen.add(key)


def _key(node: yaml.Node) -> str:
    """As it is written: YAML would read `on` as true."""
    return node.value if isinstance(node, yaml.ScalarNode) else "?"
