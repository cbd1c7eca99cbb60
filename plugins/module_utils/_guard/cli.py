# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin command on a guarded host."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from typing import Any, Callable

from .errors import EnforcerError, PolicyErrors

PROBLEM, USAGE = 1, 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exfil-guard",
        description="See and settle what exfil.guard denies on this host. Policies come from "
        "Ansible; this command never writes one.",
        epilog="Exit status: 0 well, 1 a problem, 2 wrong usage. "
        "`exfilguard.off` on the kernel command line boots without any policy.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    def command(name: str, text: str, as_json: bool = True) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if as_json:
            found.add_argument("--json", action="store_true", help="for programs: JSON instead of text")
        return found

    command("status", "what is in force, what it denied, and whether it drifted from the stored document")
    command("verify", "whether programs, maps, policy and files are as the certificate says, and what is not proved")
    events = command("events", "what was denied or reported; without options the waiting events are left in place")
    events.add_argument("--take", action="store_true", help="remove what is shown, to make room for new events")
    events.add_argument("--follow", action="store_true", help="go on until interrupted (implies --take)")
    events.add_argument("--limit", type=int, metavar="N", help="show at most N events, oldest first")
    watch = command("watch", "what is denied or reported, as it happens, the same told once with a count")
    watch.add_argument(
        "--before",
        type=int,
        metavar="N",
        default=10,
        help="so many lines that are in the journal already come first; default: 10",
    )
    why = command(
        "why", "the last denials, each with its rule and what would have to change in which set for it to pass"
    )
    why.add_argument("--user", help="of whom: name or number; also who logged in as that user")
    why.add_argument("--pid", type=int, help="of which process")
    why.add_argument("--limit", type=int, metavar="N", default=5, help="at most N, newest first; default: 5")
    metrics = command("metrics", "status as a Prometheus textfile", False)
    metrics.add_argument("--output", metavar="FILE", help="written in one step; default: to be seen here")
    explain = command(
        "explain",
        "what the stored policy says about an attempt, and which rules say it; without "
        "--user, who may do it and who may not",
    )
    explain.add_argument("--user", help="whose attempt it is: name or number")
    explain.add_argument("--group", action="append", metavar="GROUP", help="a group besides the user's own; repeatable")
    explain.add_argument("--login-user", help="who logged in, if another (sudo); default: the user, none for a service")
    explain.add_argument("--service", help="systemd unit that the process belongs to; default: the user's session")
    explain.add_argument("--executable", help="the program; default: unknown, which binds and does not except")
    explain.add_argument(
        "--has-read",
        action="append",
        metavar="SET",
        default=[],
        help="a resource set that the process has read something of; repeatable",
    )
    explain.add_argument("--action", help="default: all that fit the object; one without an object has to be said")
    target = explain.add_mutually_exclusive_group()
    target.add_argument("--path", help="the file, or a unix socket")
    target.add_argument("--address", help="IPv4 or IPv6 address, or vsock:CID")
    explain.add_argument("--port", type=int, default=443, help="default: 443")
    explain.add_argument("--protocol", default="tcp", help="name or number; default: tcp")
    explain.add_argument("--generation", type=int, help="a stored generation; default: the one in force")
    confirm = command("confirm", "keep the generation on trial for good")
    confirm.add_argument("generation", nargs="?", type=int, help="its number; default: the one on trial")
    command("rollback", "put the generation before in force now")
    audit = command("audit", "(units only) hand events to the journal until told to stop", False)
    audit.add_argument("--json-lines", metavar="FILE", help="append each record there, too")
    audit.add_argument(
        "--fold", type=int, metavar="SECONDS", default=10, help="the same is told again only after so long; default: 10"
    )
    command("boot", "(units only) load the last confirmed policy", False)
    command("refresh", "(units only) follow changed users, units, mounts and expiry dates", False)
    return parser


class _Host:
    """What a command works on; tests put fakes here."""

    def __init__(self) -> None:
        from .host.store import Store
        from .host.system import System
        from .kernel.bpf import Kernel

        self.kernel: Any = Kernel()
        self.store: Any = Store()
        self.system: Any = System()
        self.now = datetime.datetime.now(datetime.timezone.utc).date()
        self.options: dict[str, Any] = {}  # for boot, refresh, confirm, rollback
        self.root = os.geteuid() == 0


def _show(value: Any, text: Callable[[Any], str], as_json: bool) -> None:
    print(json.dumps(value, sort_keys=True, indent=2) if as_json else text(value))


def _status(host: _Host, arguments: argparse.Namespace) -> int:
    from .report import status

    found = status.status(host.kernel, host.store, host.system, host.now)
    _show(found, status.to_text, arguments.json)
    return PROBLEM if found["drift"] or found["problems"] or not found["installed"] else 0


def _verify(host: _Host, arguments: argparse.Namespace) -> int:
    from .lifecycle import canary
    from .report import verify

    found = verify.verify(
        host.kernel, host.store, host.system, host.now, canary_folder=host.options.get("canary_folder", canary.FOLDER)
    )
    _show(found.to_json() if arguments.json else found, verify.to_text, arguments.json)
    return 0 if found.verified else PROBLEM


def _events(host: _Host, arguments: argparse.Namespace) -> int:
    from .audit import events

    line = events.to_json_line if arguments.json else events.to_line
    while True:
        for event in events.read(
            host.kernel, host.system, take=arguments.take or arguments.follow, limit=arguments.limit
        ):
            print(line(event), flush=True)
        if not arguments.follow:
            return 0
        time.sleep(0.5)


def _watch(host: _Host, arguments: argparse.Namespace) -> int:
    from .audit import watch

    colour = watch.coloured(sys.stdout)
    for record in watch.records(host.kernel, host.system, host.store, before=arguments.before):
        print(json.dumps(record) if arguments.json else watch.to_line(record, colour), flush=True)
    return 0


def _why(host: _Host, arguments: argparse.Namespace) -> int:
    from .audit import collector as audit
    from .audit import record as trail
    from .explain import denial as why
    from .kernel import generations

    generation = generations.read(host.kernel).generation
    user = why.user_number(host.system, arguments.user) if arguments.user is not None else None
    records = why.denials(
        host.kernel,
        host.system,
        host.store,
        user=user,
        pid=arguments.pid,
        limit=arguments.limit,
        collector=audit.told(),
    )
    documents = trail.Documents(host.store)
    answers = [why.explain_record(record, documents.get(record["generation"]), host.system) for record in records]
    _show(
        {"generation": generation, "denials": answers},
        lambda found: why.to_text(found["denials"], generation),
        arguments.json,
    )
    return 0


def _metrics(host: _Host, arguments: argparse.Namespace) -> int:
    from .report import metrics, status

    text = metrics.to_text(status.status(host.kernel, host.store, host.system, host.now))
    if arguments.output:
        metrics.write(text, arguments.output)
    else:
        print(text, end="")
    return 0


def _audit(host: _Host, arguments: argparse.Namespace) -> int:
    from .audit import collector as audit

    return audit.run(
        host.kernel, host.system, host.store, json_lines=arguments.json_lines, window=arguments.fold, **host.options
    )


def _explain(host: _Host, arguments: argparse.Namespace) -> int:
    from .explain import decision as explain
    from .kernel import generations
    from .resolve import encoding

    number = arguments.generation
    if number is None:
        try:
            number = generations.read(host.kernel).generation
        except OSError:
            number = 0
    stored = host.store.load(number) if number else host.store.last_confirmed()
    if stored is None:
        which = f" of generation {number}" if number else ""
        raise EnforcerError("there is no stored policy" + which, "Apply one with role exfil.guard.policy")
    resolved = encoding.from_json(stored["resolved"])
    asked = {
        "path": arguments.path,
        "address": arguments.address,
        "port": arguments.port,
        "protocol": arguments.protocol,
        "action": arguments.action,
        "system": host.system,
    }
    if arguments.user is None:
        if any((arguments.group, arguments.login_user, arguments.service, arguments.executable, arguments.has_read)):
            raise EnforcerError("it is not said whose attempt it is", "Add --user, root for most services")
        answers, text = explain.who_may(resolved, host.now, **asked), explain.who_to_text
    else:
        who = explain.task(
            host.system,
            user=arguments.user,
            groups=arguments.group,
            login_user=arguments.login_user,
            service=arguments.service,
            executable=arguments.executable,
            has_read=arguments.has_read,
        )
        answers, text = explain.explain(resolved, who, host.now, **asked), explain.to_text
    _show(
        {"generation": stored["generation"], "answers": answers}, lambda found: text(found["answers"]), arguments.json
    )
    return 0


def _settled(result: dict[str, Any], text: str, arguments: argparse.Namespace) -> int:
    _show(result, lambda _: text, arguments.json)
    for warning in result.get("warnings", ()):
        print("exfil-guard: warning: " + warning, file=sys.stderr)
    return 0


def _confirm(host: _Host, arguments: argparse.Namespace) -> int:
    from .kernel import generations
    from .lifecycle import apply

    number = arguments.generation
    if number is None:
        record = generations.read_record(host.kernel)
        if record is None or not record.deadline:
            raise EnforcerError("no generation is on trial")
        number = record.generation
    result = apply.confirm(host.kernel, host.store, number, **host.options)
    return _settled(result, f"generation {number} is confirmed", arguments)


def _rollback(host: _Host, arguments: argparse.Namespace) -> int:
    from .lifecycle import apply

    result = apply.rollback(host.kernel, host.store, **host.options)
    now = "generation {0} is in force".format(result["generation"]) if result["generation"] else "no policy is in force"
    return _settled(result, now, arguments)


def _boot(host: _Host, arguments: argparse.Namespace) -> int:
    from .lifecycle import boot

    try:
        print(boot.boot(host.kernel, host.system, host.store, host.now, **host.options))
        return 0
    except (EnforcerError, PolicyErrors) as error:
        if boot.required(host.store):
            raise
        # the unit must not fail: what requires it would be held back
        print(f"exfil-guard: NOT GUARDED (boot: best-effort): {error}", file=sys.stderr)
        return 0


def _refresh(host: _Host, arguments: argparse.Namespace) -> int:
    from .lifecycle import boot

    print(boot.refresh(host.kernel, host.system, host.store, host.now, **host.options))
    return 0


_COMMANDS = {
    "status": _status,
    "verify": _verify,
    "events": _events,
    "explain": _explain,
    "confirm": _confirm,
    "rollback": _rollback,
    "watch": _watch,
    "why": _why,
    "metrics": _metrics,
    "audit": _audit,
    "boot": _boot,
    "refresh": _refresh,
}


def main(argv: list[str] | None = None, host: _Host | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        host = host or _Host()
        if not host.root:
            raise EnforcerError(
                "only root can read and settle what the kernel enforces", f"Run: sudo exfil-guard {arguments.command}"
            )
        return _COMMANDS[arguments.command](host, arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FileNotFoundError as error:
        told = "enforcer not installed. Run role exfil.guard.enforcer" if "exfil_guard" in str(error) else str(error)
        print("exfil-guard: " + told, file=sys.stderr)
    except (EnforcerError, PolicyErrors, OSError, ValueError) as error:
        print(f"exfil-guard: {error}", file=sys.stderr)
    return PROBLEM
