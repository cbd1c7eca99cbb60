# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the events observed on hosts, proposes a policy that allows them, checks the proposal, and writes it to a file
on the controller. Does not connect to hosts and applies no policy."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Iterable

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline, render, schema, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError, Problem
    from ansible_collections.exfil.guard.plugins.plugin_utils._learn import observed, proposer
    from ansible_collections.exfil.guard.plugins.plugin_utils._learn import template as _proposal
except ImportError as error:  # jsonschema is not a dependency of ansible-core
    LACKING = f"this controller cannot read policies: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""

SUFFIX = ".jsonl"
MINIMUM = {
    "files": 1,
    "executables": 1,
    "users": 1,
    "ports": 1,
    "ipv4_prefix": 0,
    "ipv6_prefix": 0,
    "assertions": 0,
    "listed": 0,
}
MAXIMUM = {"ipv4_prefix": 32, "ipv6_prefix": 128}
OPTIONS = {
    "group": {"type": "str", "required": True},
    "file": {"type": "str", "required": True},
    "observations": {"type": "str"},
    "records": {"type": "dict"},
    "resources": {"type": "dict", "default": {}},
    "hosts": {"type": "list", "elements": "str"},
    "names": {"type": "dict", "default": {}},
    "policies": {"type": "str"},
    "cut": {"type": "bool", "default": False},
    "files": {"type": "int", "default": 20},
    "roots": {"type": "list", "elements": "str", "default": []},
    "executables": {"type": "int", "default": 8},
    "users": {"type": "int", "default": 4},
    "ports": {"type": "int", "default": 16},
    "ipv4_prefix": {"type": "int", "default": 32},
    "ipv6_prefix": {"type": "int", "default": 128},
    "assertions": {"type": "int", "default": 50},
    "listed": {"type": "int", "default": 200},
    "unbound": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Action plugin exfil.guard.learn."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(OPTIONS)

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs the task."""
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            argument_spec=OPTIONS,
            mutually_exclusive=[("observations", "records")],
            required_one_of=[("observations", "records")],
        )
        if LACKING:
            raise AnsibleError(LACKING)
        variables = task_vars or {}
        hosts = options["hosts"] if options["hosts"] is not None else list(variables["ansible_play_hosts_all"])
        hosts = sorted(map(str, hosts))
        file = os.path.normpath(self._loader.path_dwim(options["file"]))
        try:
            settings, problems = _settings(options)
            sources, invalid = self._sources(hosts, options, variables)
            if problems or invalid:
                raise FragmentError(problems + invalid)
            proposal, text = self._proposal(file, sources, settings, options["policies"], variables)
        except FragmentError as error:
            return {
                "failed": True,
                "changed": False,
                "msg": f"Nothing was written. {error}",
                "problems": [_document.plain(problem._asdict()) for problem in error.problems],
            }
        before = _content(file)
        changed = before != text or _mode(file) != 0o600
        if changed and not self._task.check_mode:
            _write(file, text)
        events = sum(seen.times for source in sources for seen in source.seen)
        summary = (
            f"{len(proposal.rules)} rules and {len(proposal.assertions)} assertions from {events} events on "
            f"{len(sources)} hosts; {proposal.decided} different events, of which 0 would be denied"
        )
        result = {
            "changed": changed,
            "msg": summary,
            "file": file,
            "denied": 0,
            "rules": len(proposal.rules),
            "events": events,
            "today": proposal.covered,
            "notes": proposal.notes,
        }
        if self._task.diff:
            result["diff"] = {"before": before or "", "after": text, "before_header": file, "after_header": file}
        return result

    def _sources(
        self, hosts: list[str], options: dict[str, Any], task_vars: dict[str, Any]
    ) -> tuple[list[observed.Source], list[Problem]]:
        """The observed events of each host, and the problems of their files or records."""
        for host in hosts:
            if host not in task_vars["hostvars"]:
                raise AnsibleError(f"the inventory has no host '{host}'")
        if not hosts:
            raise AnsibleError("there are no hosts to learn from. Select a group with hosts")
        sources: list[observed.Source] = []
        problems: list[Problem] = []
        for host in hosts:
            if options["records"] is not None:
                source, invalid = _reported(host, options["records"].get(host))
            else:
                source, invalid = self._observation(host, options)
            problems.extend(invalid)
            if source:
                sources.append(source)
        return sources, problems

    def _observation(self, host: str, options: dict[str, Any]) -> tuple[observed.Source | None, list[Problem]]:
        path = os.path.join(self._loader.path_dwim(options["observations"]), host + SUFFIX)
        try:
            with open(path, "rb") as opened:
                data = opened.read()
        except OSError as error:
            return None, [
                Problem(
                    path,
                    None,
                    "",
                    f"cannot be read: {error.strerror}",
                    "",
                    f"Run role exfil.guard.observe on {host}, or exclude the host",
                )
            ]
        names = [host, str(options["names"].get(host, host)), host.partition(".")[0]]
        source, problems = observed.read(path, data, dict.fromkeys(names), options["cut"])
        return source, problems

    def _proposal(
        self,
        file: str,
        sources: list[observed.Source],
        settings: proposer.Options,
        policies: str | None,
        task_vars: dict[str, Any],
    ) -> tuple[proposer.Proposal, str]:
        """The proposal and its text. It is valid, alone and merged with each host's policy, and denies no observed
        event. Raises FragmentError."""
        variables = {
            source.host: dict(task_vars["hostvars"].raw_get(source.host), hostvars=task_vars["hostvars"])
            for source in sources
        }
        folder = site.folder(self._loader, policies, task_vars)
        templates: dict[str, list[pipeline.Template]] = {}
        todays: dict[str, dict[str, Any] | None] = {}
        for host, own in variables.items():
            paths = pipeline.find(folder, own.get("group_names", []), host)
            templates[host] = [pipeline.read(folder, path) for path in paths if os.path.abspath(path) != file]
            todays[host] = self._document(templates[host], folder, own) if templates[host] else None
        today = site.today()
        proposal = proposer.propose(sources, settings, todays, today)
        name = os.path.basename(file)
        if proposal.problems:
            raise FragmentError(Problem(name, None, "", problem) for problem in proposal.problems)
        by_rule = any(current is not None and current["mode"] == "enforce" for current in todays.values())
        text = _proposal.to_text(proposal, settings, sources, by_rule)
        template = pipeline.Template(name, text)
        denied: list[str] = []
        for source in sources:
            own = variables[source.host]
            alone = self._document([template], folder, own)
            denied += proposer.replay(alone, [source], today)[1]
            if templates[source.host]:
                self._document([*templates[source.host], template], folder, own)
        if denied:
            found = f"{len(denied)} observed events would be denied: {'; '.join(denied[:5])}"
            raise FragmentError(
                [Problem(name, None, "", found, "none", "This is a bug of exfil.guard.learn: please report it")]
            )
        return proposal, text

    def _document(
        self, templates: Iterable[pipeline.Template], folder: str, variables: dict[str, Any]
    ) -> dict[str, Any]:
        renderer = self._templar.copy_with_new_env(searchpath=site.searchpath(folder), available_variables=variables)
        document: dict[str, Any] = pipeline.document(
            templates,
            lambda source: _document.plain(renderer.template(site.trust_as_template(source), escape_backslashes=False)),
            site.today(),
        )
        return document


def _reported(host: str, records: object) -> tuple[observed.Source | None, list[Problem]]:
    if not isinstance(records, list):
        remedy = "Run role exfil.guard.audit, or exclude the host"
        return None, [Problem(f"audit trail of {host}", None, "", "there is none", "", remedy)]
    source, problems = observed.reported(host, _document.plain(records))
    return source, problems


def _settings(options: dict[str, Any]) -> tuple[proposer.Options, list[Problem]]:
    """The proposer's options, and the problems of the task's options."""
    problems: list[Problem] = []
    for key, minimum in MINIMUM.items():
        maximum = MAXIMUM.get(key)
        if options[key] < minimum or (maximum is not None and options[key] > maximum):
            expected = f"{minimum} to {maximum}" if maximum is not None else f"{minimum} or more"
            problems.append(Problem(f"option `{key}`", None, "", f"found {options[key]}", expected))
    for root in options["roots"]:
        if not root.startswith("/"):
            problems.append(Problem("option `roots`", None, "", f"found {root!r}", "an absolute path"))
    resources = _document.plain(options["resources"])
    named = {name: {"paths": paths} for name, paths in resources.items()}
    fragment = render.Fragment("option `resources`", {"policy": 1, "resources": named}, {})
    problems += [
        problem._replace(path=problem.path.replace("$.resources.", "").replace(".paths", ""))
        for problem in schema.validate(fragment)
    ]
    keys = ("files", "executables", "users", "ports", "ipv4_prefix", "ipv6_prefix", "assertions", "listed")
    return proposer.Options(
        str(options["group"]),
        resources,
        roots=tuple(options["roots"]),
        unbound=tuple(options["unbound"]),
        **{key: options[key] for key in keys},
    ), problems


def _content(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnsibleError(f"{file} cannot be read: {error.strerror}. Set `file` to another") from error


def _mode(file: str) -> int:
    return os.stat(file).st_mode & 0o7777


def _write(file: str, text: str) -> None:
    """Writes the file atomically, with mode 0600."""
    folder = os.path.dirname(file)
    try:
        number, temporary = tempfile.mkstemp(dir=folder, prefix=".learn-")  # mode 0600
        try:
            with open(number, "w", encoding="utf-8") as opened:
                opened.write(text)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise AnsibleError(f"{file} cannot be written: {error.strerror}. Set `file` to another") from error
