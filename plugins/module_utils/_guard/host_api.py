# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations on a guarded host. Ansible modules and the command `exfil-guard` call these and nothing else of the
package.

Results are dicts that JSON can hold: they become the results of modules. Operations raise EnforcerError, PolicyErrors
and OSError, which `failure` describes. Each operation imports what it needs, so that a command starts quickly."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Sequence, TextIO

from .errors import EnforcerError, PolicyErrors, Problem
from .host.paths import Paths
from .layout import LIBRARY

if TYPE_CHECKING:
    from .audit.events import AnyEvent
    from .audit.record import Record
    from .host.protocols import Store, System
    from .host.stored import Stored
    from .kernel.protocol import Kernel
    from .lifecycle.context import Context
    from .report.status import Status

Result = Dict[str, Any]


@dataclass(frozen=True)
class Report:
    """A result for programs (``value``, which JSON can hold) and people (``text``). ``ok``: no problem was found."""

    value: Result
    text: str
    ok: bool = True


@dataclass(frozen=True)
class Subject:
    """The task that makes an attempt, in the words of `exfil-guard explain`. None: the default, or not known."""

    user: str | None = None
    groups: list[str] | None = None
    login_user: str | None = None
    service: str | None = None
    executable: str | None = None
    has_read: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """What a task attempts. ``action``: None for every action that the object can have."""

    action: str | None = None
    path: str | None = None
    address: str | None = None
    port: int = 443
    protocol: str = "tcp"


def _first(lines: Sequence[str]) -> str:
    """The first line, and how many more there are; empty if there is none."""
    more = f", and {len(lines) - 1} more problems" if lines[1:] else ""
    return "".join(lines[:1]) + more


@dataclass(frozen=True)
class Host:
    """A host and the operations on it. ``now``: the date (UTC) by which rules expire. ``root``: whether the process
    runs as root."""

    kernel: Kernel
    system: System
    store: Store
    now: datetime.date
    paths: Paths = field(default_factory=Paths)
    root: bool = True

    # ---- the enforcer ------------------------------------------------------------------------------------------------

    def install(self, library: str, *, check: bool = False) -> Result:
        """Installs the package in ``library`` (a folder, or a folder inside a zip file) and loads its programs. Raises
        PolicyErrors when the host does not meet a prerequisite, except in check mode."""
        from .attest import certificate
        from .host import install, lock
        from .lifecycle import enforcer, next_boot, prerequisites

        missing = prerequisites.missing(self.kernel)
        if missing and not check:
            raise PolicyErrors(Problem("host", item["found"], "", item["remedy"]) for item in missing)
        package = install.read_package(library)

        def work() -> Result:
            # the kernel loads the object first: one that it refuses must not replace the installed one
            loaded = enforcer.ensure(self.kernel, package[LIBRARY + "/guard.bpf.o"], check=check)
            lines = install.ensure(package, check=check)
            held_back = next_boot.drop_ins(self.store, unit=True)
            if held_back and not check:
                next_boot.hold_back(self.store, bool(next_boot.required(self.store)))
            result = install.result_of([*lines, *held_back], loaded)
            if result["changed"] and not check:  # other programs enforce the policy now
                issued = certificate.issue(self.kernel, self.store, loaded["version"])
                result["warnings"] = result.get("warnings", []) + issued
            return result

        if check:
            result = work()
        else:
            with lock.hold("installing the enforcer", self.paths.lock):
                result = work()
        result["lacking"] = missing
        if any(item["name"] == "lsm" for item in missing):
            result["lsm"] = prerequisites.wanted_lsms(self.kernel)
        return result

    def uninstall(self, *, check: bool = False) -> Result:
        """Removes the programs, the policy, the package and the lock file."""
        from .host import install, lock
        from .lifecycle import enforcer

        if check:
            files = install.remove(check=True, gone=self.store.paths())
            return install.result_of(files, enforcer.remove(self.kernel, self.store, check=True))
        if not install.traces() and not self.kernel.exists(self.kernel.path("exfil_guard")):
            return {"changed": False, "diff": {"prepared": ""}}
        install.quiet()
        with lock.hold("removing the enforcer", self.paths.lock):
            removed = enforcer.remove(self.kernel, self.store)
            result = install.result_of(install.remove(), removed)
            os.unlink(self.paths.lock)
            return result

    def installation_problems(self) -> tuple[str, ...]:
        """A line for each installed file, unit and timer that is not as it was installed."""
        from .host import install

        return tuple(install.problems(self.store.library, self.store.root))

    def enforcer_problem(self, installation: Sequence[str]) -> str:
        """Why the role enforcer has to run before a policy can be applied; empty when it does not.

        ``installation``: the result of `installation_problems`."""
        from .host import files
        from .lifecycle import enforcer

        try:
            version = enforcer.installed(self.kernel)
            installed_version = enforcer.version_of(files.read(self.paths.object))
        except EnforcerError as error:
            return error.message
        except OSError:
            return "the enforcer is not installed"
        if version is None:
            return "the enforcer is not installed"
        if version != installed_version:
            return "the enforcer in the kernel is of another release"
        foreign = enforcer.foreign_programs(self.kernel, version)
        if foreign:
            return "another program is pinned in place of {}".format(", ".join(foreign))
        return _first(installation)

    # ---- the policy --------------------------------------------------------------------------------------------------

    def apply(
        self,
        document: dict[str, Any],
        *,
        check: bool = False,
        confirm_seconds: float = 60,
        revision: str | None = None,
        soak: bool = False,
        installation: tuple[str, ...] | None = None,
    ) -> Result:
        """Puts ``document`` in force. ``revision``: the commit that it was made from. ``soak``: what is in force stays,
        and what is new in ``document`` only reports. ``installation``: the result of `installation_problems`, if it was
        just called."""
        from .lifecycle import apply

        context = self._context(
            check=check, confirm_seconds=confirm_seconds, revision=revision, soak=soak, installation=installation
        )
        return apply.apply(context, document)

    def restore(
        self,
        *,
        generation: int | None = None,
        revisions: Iterable[str] = (),
        check: bool = False,
        confirm_seconds: float = 60,
        installation: tuple[str, ...] | None = None,
    ) -> Result:
        """Applies the document of an earlier generation again, chosen by its number or by the commit in force then.
        ``installation``: as for `apply`."""
        from .lifecycle import apply

        context = self._context(check=check, confirm_seconds=confirm_seconds, installation=installation)
        return apply.restore(context, generation=generation, revisions=revisions)

    def confirm(self, generation: int | None, *, check: bool = False) -> Result:
        """Makes the generation on trial permanent. None: the one on trial, if there is one."""
        from .lifecycle import confirm

        return confirm.confirm(self.kernel, self.store, generation, check=check, lock_path=self.paths.lock)

    def on_trial(self) -> int | None:
        """The number of the generation on trial."""
        from .kernel import generations

        record = generations.read_record(self.kernel)
        return record.generation if record and record.deadline else None

    def rollback(self, *, check: bool = False) -> Result:
        """Puts the fallback generation in force now."""
        from .lifecycle import confirm

        return confirm.rollback(self.kernel, self.store, check=check, lock_path=self.paths.lock)

    def remove(self, *, check: bool = False) -> Result:
        """Removes the policy. The enforcer stays loaded."""
        from .lifecycle import confirm

        return confirm.remove(self.kernel, self.store, check=check, lock_path=self.paths.lock)

    def boot(self) -> str:
        """Puts the last confirmed policy in force. Gives one line for the journal."""
        from .lifecycle import boot

        return boot.boot(self._context())

    def boot_required(self) -> bool:
        """Whether network and logins must wait until the policy is in force."""
        from .lifecycle import boot

        return boot.required(self.store)

    def refresh(self) -> str:
        """Applies the confirmed document again if it has another meaning on this host today. Gives one line for the
        journal."""
        from .lifecycle import boot

        return boot.refresh(self._context())

    def _context(
        self,
        *,
        check: bool = False,
        confirm_seconds: float = 60,
        revision: str | None = None,
        soak: bool = False,
        installation: tuple[str, ...] | None = None,
    ) -> Context:
        from .lifecycle.context import Context, Options

        options = Options(check, confirm_seconds, revision, soak, installation=installation, paths=self.paths)
        return Context(self.kernel, self.system, self.store, self.now, options)

    # ---- reports -----------------------------------------------------------------------------------------------------

    def status(self) -> Result:
        """What is in force, what it denied, and whether it drifted from the stored document."""
        return self._status().to_json()

    def _status(self) -> Status:
        from .report import status

        return status.status(self.kernel, self.store, self.system, self.now)

    def status_report(self) -> Report:
        """The status, for people too."""
        from .report import status

        found = self._status()
        return Report(found.to_json(), status.to_text(found), found.ok)

    def metrics(self) -> str:
        """The status as a Prometheus text file."""
        from .report import metrics

        return metrics.to_text(self._status())

    def verify(self) -> Report:
        """Compares the host with its certificate."""
        from .report import verify

        found = verify.verify(self.kernel, self.store, self.system, self.now, canary_folder=self.paths.canary)
        return Report(found.to_json(), verify.to_text(found), found.verified)

    # ---- events ------------------------------------------------------------------------------------------------------

    def events(self, *, take: bool = False, limit: int | None = None) -> list[AnyEvent]:
        """Events that wait in the kernel's buffer, oldest first. ``take``: removes them."""
        from .audit import events

        return events.read(self.kernel, self.system, take=take, limit=limit)

    def audit_records(self, *, since: str, limit: int) -> list[dict[str, Any]]:
        """Audit records in the journal, newest first. ``since``: a time as journalctl takes it."""
        from .audit import journal

        return [entry.to_json() for entry in journal.read(["--since=" + since, *journal.matches()], limit)]

    def watch(self, *, before: int) -> Iterator[Record]:
        """Audit records as they appear, without end. ``before``: how many earlier ones come first."""
        from .audit import watch

        return watch.records(self.kernel, self.system, self.store, before=before)

    def collect_events(self, *, json_lines: str | None, fold_seconds: int) -> int:
        """Hands events to the journal until a signal ends the process. ``json_lines``: a file that gets them, too.
        Gives the exit status."""
        from .audit import collector

        return collector.run(self.kernel, self.system, self.store, json_lines=json_lines, window=fold_seconds)

    # ---- explanations ------------------------------------------------------------------------------------------------

    def why(self, *, user: str | None, pid: int | None, limit: int) -> Report:
        """The last denials, each with its rule and the changes that would let it pass."""
        from .audit import collector, record
        from .explain import denial
        from .kernel import generations

        generation = generations.read(self.kernel).generation
        records = denial.denials(
            self.kernel,
            self.system,
            self.store,
            user=denial.user_number(self.system, user) if user is not None else None,
            pid=pid,
            limit=limit,
            collector=collector.status(),
        )
        documents = record.Documents(self.store)
        answers = [denial.explain_record(item, documents.get(item.generation), self.system) for item in records]
        value = {"generation": generation, "denials": [answer.to_json() for answer in answers]}
        return Report(value, denial.to_text(answers, generation))

    def explain(self, subject: Subject, attempt: Attempt, generation: int | None = None) -> Report:
        """What the stored policy decides about ``attempt``; without a user in ``subject``, who may make it and who may
        not. ``generation``: None for the one in force."""
        from .explain import decision
        from .resolve import encoding

        stored = self._stored(generation)
        resolved = encoding.from_json(stored.resolved)
        attempts = decision.attempts(self.system, **vars(attempt))
        if subject.user is None:
            if any(vars(subject).values()):
                raise EnforcerError(
                    "--group, --login-user, --service, --executable and --has-read require --user",
                    "Add --user, root for most services",
                )
            permissions = decision.who_may(resolved, self.now, attempts)
            answers = [answer.to_json() for answer in permissions]
            text = decision.who_to_text(permissions)
        else:
            task = decision.task(
                self.system,
                user=subject.user,
                groups=subject.groups,
                login_user=subject.login_user,
                service=subject.service,
                executable=subject.executable,
                has_read=list(subject.has_read),
            )
            decisions = decision.explain(resolved, task, self.now, attempts)
            answers = [answer.to_json() for answer in decisions]
            text = decision.to_text(decisions)
        return Report({"generation": stored.generation, "answers": answers}, text)

    def _stored(self, generation: int | None) -> Stored:
        from .kernel import generations

        if generation is None:
            try:
                generation = generations.read(self.kernel).generation
            except OSError:
                generation = 0
        stored = self.store.load(generation) if generation else self.store.last_confirmed()
        if stored is None:
            which = f" of generation {generation}" if generation else ""
            raise EnforcerError("there is no stored policy" + which, "Apply one with role exfil.guard.policy")
        return stored


def this_host() -> Host:
    """The host that this process runs on."""
    from .host.store import Store
    from .host.system import System
    from .kernel.bpf import Kernel

    now = datetime.datetime.now(datetime.timezone.utc).date()
    return Host(Kernel(), System(), Store(), now, root=os.geteuid() == 0)


def failure(error: BaseException) -> Result | None:
    """The result of a module that fails with ``error``: ``msg`` and perhaps ``problems``. None: ``error`` is a defect
    of the package."""
    if isinstance(error, PolicyErrors):
        return {"msg": str(error), "problems": [problem._asdict() for problem in error.problems]}
    if isinstance(error, EnforcerError):
        return {"msg": str(error)}
    if isinstance(error, OSError):
        return {"msg": "{}{}".format(error.strerror or error, f": {error.filename}" if error.filename else "")}
    return None


def event_formatter(as_json: bool) -> Callable[[AnyEvent], str]:
    """Formats an event of `Host.events` as one line."""
    from .audit import events

    return events.to_json_line if as_json else events.to_line


def record_formatter(stream: TextIO, as_json: bool) -> Callable[[Record], str]:
    """Formats an audit record of `Host.watch` as one line, in colour if ``stream`` is a terminal."""
    from .audit import watch

    if as_json:
        return lambda record: json.dumps(record.to_json())
    colour = watch.coloured(stream)
    return lambda record: watch.to_line(record, colour)


def write_metrics(text: str, path: str) -> None:
    """Replaces the file ``path`` by ``text`` in one step."""
    from .report import metrics

    metrics.write(text, path)


__all__ = [
    "Attempt",
    "EnforcerError",
    "Host",
    "Paths",
    "PolicyErrors",
    "Report",
    "Result",
    "Subject",
    "event_formatter",
    "failure",
    "record_formatter",
    "this_host",
    "write_metrics",
]
