# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin command on a guarded host."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from . import host_api
from .host_api import EnforcerError, Host, PolicyErrors

PROBLEM = 1
_FOLLOW_SECONDS = 0.5  # between two reads of `events --follow`


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exfil-guard",
        description="Shows what exfil.guard denies on this host, and confirms or rolls back a policy. Policies come "
        "from Ansible; this command never writes one.",
        epilog="Exit status: 0 no problem, 1 a problem, 2 wrong usage. "
        "`exfilguard.off` on the kernel command line boots without any policy.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    def command(name: str, text: str, as_json: bool = True) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if as_json:
            subparser.add_argument("--json", action="store_true", help="print JSON instead of text")
        return subparser

    command("status", "what is in force, what it denied, and whether it drifted from the stored document")
    command("verify", "compare programs, maps, policy and files with the certificate, and list what is not proved")
    events = command("events", "show the events in the ring buffer; without options they stay there")
    events.add_argument(
        "--take", action="store_true", help="remove the events that are shown, to make room for new ones"
    )
    events.add_argument("--follow", action="store_true", help="show new events until interrupted (implies --take)")
    events.add_argument("--limit", type=int, metavar="N", help="show at most N events, oldest first")
    watch = command("watch", "show denials and reports as they happen; equal ones are shown once, with a count")
    watch.add_argument(
        "--before", type=int, metavar="N", default=10, help="show the last N records of the journal first; default: 10"
    )
    why = command("why", "explain the last denials: the rule of each, and which change in which set would let it pass")
    why.add_argument("--user", help="only denials of this user (name or number), also as the login user")
    why.add_argument("--pid", type=int, help="only denials of this process")
    why.add_argument(
        "--limit", type=int, metavar="N", default=5, help="show at most N denials, newest first; default: 5"
    )
    metrics = command("metrics", "print the status as a text file for Prometheus", False)
    metrics.add_argument("--output", metavar="FILE", help="replace FILE in one step; default: standard output")
    explain = command(
        "explain",
        "show what the stored policy decides about an attempt, and by which rules; without --user, who may "
        "make it and who may not",
    )
    explain.add_argument("--user", help="the user who makes the attempt: name or number")
    explain.add_argument("--group", action="append", metavar="GROUP", help="a group besides the user's own; repeatable")
    explain.add_argument(
        "--login-user", help="the login user, if another (sudo); default: the user, none for a service"
    )
    explain.add_argument("--service", help="systemd unit that the process belongs to; default: the user's session")
    explain.add_argument(
        "--executable", help="the program; default: unknown, so that rules apply and exceptions do not"
    )
    explain.add_argument(
        "--has-read",
        action="append",
        metavar="SET",
        default=[],
        help="a resource set of which the process has read something; repeatable",
    )
    explain.add_argument("--action", help="default: every action that fits the object; required without an object")
    target = explain.add_mutually_exclusive_group()
    target.add_argument("--path", help="the file, or a unix socket")
    target.add_argument("--address", help="IPv4 or IPv6 address, or vsock:CID")
    explain.add_argument("--port", type=int, default=443, help="default: 443")
    explain.add_argument("--protocol", default="tcp", help="name or number; default: tcp")
    explain.add_argument("--generation", type=int, help="a stored generation; default: the one in force")
    confirm = command("confirm", "make the generation on trial permanent")
    confirm.add_argument("generation", nargs="?", type=int, help="its number; default: the one on trial")
    command("rollback", "put the previous generation in force now")
    audit = command("audit", "(units only) write events to the journal until a signal stops it", False)
    audit.add_argument("--json-lines", metavar="FILE", help="also append each record to FILE")
    audit.add_argument(
        "--fold", type=int, metavar="SECONDS", default=10, help="aggregate equal events for SECONDS; default: 10"
    )
    command("boot", "(units only) load the last confirmed policy", False)
    command("refresh", "(units only) apply changes of users, units, mounts and expiry dates", False)
    return parser


def _show(report: host_api.Report, arguments: argparse.Namespace) -> int:
    print(json.dumps(report.value, sort_keys=True, indent=2) if arguments.json else report.text)
    return 0 if report.ok else PROBLEM


def _status(host: Host, arguments: argparse.Namespace) -> int:
    return _show(host.status_report(), arguments)


def _verify(host: Host, arguments: argparse.Namespace) -> int:
    return _show(host.verify(), arguments)


def _events(host: Host, arguments: argparse.Namespace) -> int:
    line = host_api.event_formatter(arguments.json)
    while True:
        for event in host.events(take=arguments.take or arguments.follow, limit=arguments.limit):
            print(line(event), flush=True)
        if not arguments.follow:
            return 0
        time.sleep(_FOLLOW_SECONDS)


def _watch(host: Host, arguments: argparse.Namespace) -> int:
    line = host_api.record_formatter(sys.stdout, arguments.json)
    for record in host.watch(before=arguments.before):
        print(line(record), flush=True)
    return 0


def _why(host: Host, arguments: argparse.Namespace) -> int:
    return _show(host.why(user=arguments.user, pid=arguments.pid, limit=arguments.limit), arguments)


def _metrics(host: Host, arguments: argparse.Namespace) -> int:
    text = host.metrics()
    if arguments.output:
        host_api.write_metrics(text, arguments.output)
    else:
        print(text, end="")
    return 0


def _audit(host: Host, arguments: argparse.Namespace) -> int:
    return host.collect_events(json_lines=arguments.json_lines, fold_seconds=arguments.fold)


def _explain(host: Host, arguments: argparse.Namespace) -> int:
    subject = host_api.Subject(
        user=arguments.user,
        groups=arguments.group,
        login_user=arguments.login_user,
        service=arguments.service,
        executable=arguments.executable,
        has_read=tuple(arguments.has_read),
    )
    attempt = host_api.Attempt(
        action=arguments.action,
        path=arguments.path,
        address=arguments.address,
        port=arguments.port,
        protocol=arguments.protocol,
    )
    return _show(host.explain(subject, attempt, arguments.generation), arguments)


def _settled(result: host_api.Result, text: str, arguments: argparse.Namespace) -> int:
    _show(host_api.Report(result, text), arguments)
    for warning in result.get("warnings", ()):
        print("exfil-guard: warning: " + warning, file=sys.stderr)
    return 0


def _confirm(host: Host, arguments: argparse.Namespace) -> int:
    number = arguments.generation
    if number is None:
        number = host.on_trial()
        if number is None:
            raise EnforcerError("no generation is on trial")
    return _settled(host.confirm(number), f"generation {number} is confirmed", arguments)


def _rollback(host: Host, arguments: argparse.Namespace) -> int:
    result = host.rollback()
    now = "generation {} is in force".format(result["generation"]) if result["generation"] else "no policy is in force"
    return _settled(result, now, arguments)


def _boot(host: Host, _arguments: argparse.Namespace) -> int:
    try:
        print(host.boot())
        return 0
    except Exception as error:
        if host.boot_required():
            raise
        # the unit does not fail, whatever happened: nothing may wait for it
        print(f"exfil-guard: NOT GUARDED (boot: best-effort): {_one_line(error)}", file=sys.stderr)
        return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, (EnforcerError, PolicyErrors, OSError, ValueError)):
        return str(error)
    return f"an error in exfil.guard itself, or a damaged file: {type(error).__name__}: {error}"


def _refresh(host: Host, _arguments: argparse.Namespace) -> int:
    print(host.refresh())
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


def main(argv: list[str] | None = None, host: Host | None = None) -> int:
    """Runs the command and gives its exit status. ``argv``: default the process's arguments; ``host``: default the host
    that it runs on."""
    arguments = _parser().parse_args(argv)
    try:
        host = host or host_api.this_host()
        if not host.root:
            raise EnforcerError(
                "only root can read and change what the kernel enforces", f"Run: sudo exfil-guard {arguments.command}"
            )
        return _COMMANDS[arguments.command](host, arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FileNotFoundError as error:
        missing = "enforcer not installed. Run role exfil.guard.enforcer" if "exfil_guard" in str(error) else str(error)
        print("exfil-guard: " + missing, file=sys.stderr)
    except Exception as error:  # no traceback reaches a user
        print(f"exfil-guard: {_one_line(error)}", file=sys.stderr)
    return PROBLEM
