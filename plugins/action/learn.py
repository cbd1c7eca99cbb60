# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what was seen on hosts, proposes a policy that lets it pass, tries the proposal, and writes it to a file here.
No host is reached and nothing is put in force."""

from __future__ import annotations

import os
import tempfile

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline, render, schema, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError, Problem
    from ansible_collections.exfil.guard.plugins.plugin_utils._learn import observed, proposer
    from ansible_collections.exfil.guard.plugins.plugin_utils._learn import template as _proposal
except ImportError as error:  # jsonschema is all that Ansible does not bring itself
    LACKING = f"policies can't be read on this controller: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""

SUFFIX = ".jsonl"
LEAST = {
    "files": 1,
    "executables": 1,
    "users": 1,
    "ports": 1,
    "ipv4_prefix": 0,
    "ipv6_prefix": 0,
    "assertions": 0,
    "listed": 0,
}
MOST = {"ipv4_prefix": 32, "ipv6_prefix": 128}
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


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(OPTIONS)

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec=OPTIONS,
            mutually_exclusive=[("observations", "records")],
            required_one_of=[("observations", "records")],
        )
        if LACKING:
            raise AnsibleError(LACKING)
        hosts = options["hosts"] if options["hosts"] is not None else list(task_vars["ansible_play_hosts_all"])
        hosts = sorted(map(str, hosts))
        file = os.path.normpath(self._loader.path_dwim(options["file"]))
        try:
            wanted, problems = _wanted(options)
            sources, wrong = self._sources(hosts, options, task_vars)
            if problems or wrong:
                raise FragmentError(problems + wrong)
            proposal, text, denied = self._proposed(file, sources, wanted, options["policies"], task_vars)
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
        told = (
            f"{len(proposal.rules)} rules and {len(proposal.assertions)} assertions from {events} events on "
            f"{len(sources)} hosts; of {proposal.decided} different ones {denied} would be denied"
        )
        result = {
            "changed": changed,
            "msg": told,
            "file": file,
            "denied": denied,
            "rules": len(proposal.rules),
            "events": events,
            "today": proposal.covered,
            "notes": proposal.notes,
        }
        if self._task.diff:
            result["diff"] = {"before": before or "", "after": text, "before_header": file, "after_header": file}
        return result

    def _sources(self, hosts, options, task_vars):
        """Of each host what was seen on it, and everything that is wrong with it."""
        for host in hosts:
            if host not in task_vars["hostvars"]:
                raise AnsibleError(f"the inventory has no host '{host}'")
        if not hosts:
            raise AnsibleError("there is no host to learn from. Name a group that has some")
        sources, problems = [], []
        for host in hosts:
            if options["records"] is not None:
                records = options["records"].get(host)
                found, wrong = (
                    (
                        None,
                        [
                            Problem(
                                f"audit trail of {host}",
                                None,
                                "",
                                "there is none",
                                "",
                                "Run role exfil.guard.audit, or leave the host out",
                            )
                        ],
                    )
                    if not isinstance(records, list)
                    else observed.reported(host, _document.plain(records))
                )
            else:
                found, wrong = self._observation(host, options)
            problems.extend(wrong)
            if found:
                sources.append(found)
        return sources, problems

    def _observation(self, host, options):
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
                    f"it can't be read: {error.strerror}",
                    "",
                    f"Run role exfil.guard.observe on {host}, or leave the host out",
                )
            ]
        names = [host, str(options["names"].get(host, host)), host.partition(".")[0]]
        return observed.read(path, data, dict.fromkeys(names), options["cut"])

    def _proposed(self, file, sources, wanted, policies, task_vars):
        """The proposal and its text, when it is right: valid alone and beside each host's policy, and nothing that was
        seen is denied. Raises FragmentError."""
        variables = {
            source.host: dict(task_vars["hostvars"].raw_get(source.host), hostvars=task_vars["hostvars"])
            for source in sources
        }
        folder = site.folder(self._loader, policies, task_vars)
        templates, todays = {}, {}
        for host, own in variables.items():
            paths = pipeline.find(folder, own.get("group_names", []), host)
            templates[host] = [pipeline.read(folder, path) for path in paths if os.path.abspath(path) != file]
            todays[host] = self._document(templates[host], folder, own) if templates[host] else None
        today = site.today()
        proposal = proposer.propose(sources, wanted, todays, today)
        name = os.path.basename(file)
        if proposal.problems:
            raise FragmentError(Problem(name, None, "", problem) for problem in proposal.problems)
        by_rule = any(each is not None and each["mode"] == "enforce" for each in todays.values())
        text = _proposal.to_text(proposal, wanted, sources, by_rule)
        template = pipeline.Template(name, text)
        denied = []
        for source in sources:
            own = variables[source.host]
            alone = self._document([template], folder, own)
            denied += proposer.replay(alone, [source], today)[1]
            if templates[source.host]:
                self._document([*templates[source.host], template], folder, own)
        if denied:
            found = f"{len(denied)} events that were seen would be denied: {'; '.join(denied[:5])}"
            raise FragmentError(
                [Problem(name, None, "", found, "none", "This is a fault of exfil.guard.learn: report it")]
            )
        return proposal, text, len(denied)

    def _document(self, templates, folder, variables):
        renderer = self._templar.copy_with_new_env(searchpath=[folder], available_variables=variables)
        return pipeline.document(
            templates,
            lambda source: _document.plain(renderer.template(site.trust_as_template(source), escape_backslashes=False)),
            site.today(),
        )


def _wanted(options):
    """The options as the proposal takes them, and what is wrong with them."""
    problems = []
    for key, least in LEAST.items():
        most = MOST.get(key)
        if options[key] < least or (most is not None and options[key] > most):
            expected = f"{least} to {most}" if most is not None else f"{least} or more"
            problems.append(Problem(f"option `{key}`", None, "", f"found {options[key]}", expected))
    for root in options["roots"]:
        if not root.startswith("/"):
            problems.append(Problem("option `roots`", None, "", f"found {root!r}", "an absolute path"))
    resources = _document.plain(options["resources"])
    named = {name: {"paths": paths} for name, paths in resources.items()}
    fragment = render.Fragment("option `resources`", {"policy": 1, "resources": named}, {})
    problems += [
        each._replace(path=each.path.replace("$.resources.", "").replace(".paths", ""))
        for each in schema.validate(fragment)
    ]
    keys = ("files", "executables", "users", "ports", "ipv4_prefix", "ipv6_prefix", "assertions", "listed")
    return proposer.Options(
        str(options["group"]),
        resources,
        roots=tuple(options["roots"]),
        unbound=tuple(options["unbound"]),
        **{key: options[key] for key in keys},
    ), problems


def _content(file):
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnsibleError(f"{file} can't be read: {error.strerror}. Set `file` to another") from error


def _mode(file):
    return os.stat(file).st_mode & 0o7777


def _write(file, text):
    """Whole or not at all; for nobody else to read."""
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
        raise AnsibleError(f"{file} can't be written: {error.strerror}. Set `file` to another") from error
