# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks the product on this machine, as root: every technique without a policy (its control), then under the policy,
then what no hook sees under the rule that closes it. One JSON line for each technique, one at the end.

    python3 -m harness.attacks [--users alice,bob,carol] [--group NAME] [TECHNIQUE...]
"""

import argparse
import json
import os
import platform
import sys
import time
import traceback

from checks import storms
from techniques import descriptors, files, flows, identity, machine, network, stories, tamper, uncommon
from techniques.registry import TECHNIQUES, part_of

from harness.attempt import ABSENT, MISTAKE, Attempt
from harness.enforcer import Enforcer
from harness.testbed import Testbed

assert uncommon and descriptors and files and flows and identity and machine and network and stories and tamper
TRACING = "/sys/kernel/tracing"
FUNCTIONS = {"userns_create": "create_user_ns"}  # where the kernel's function has another name than its hook


class Trace:
    """Which of the kernel's hooks said no: what each returned, as the kernel's own tracing tells it."""

    def __init__(self, hooks):
        self.hooks = set(hooks)
        if not os.path.exists(TRACING + "/kprobe_events"):
            os.system(f"mount -t tracefs tracefs {TRACING} 2>/dev/null")
        self.there = os.path.exists(TRACING + "/kprobe_events")
        if not self.there:
            return
        self.put("kprobe_events", "\n")
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
            symbols = {line.split()[2] for line in file if " security_" in line}
        for hook in sorted(self.hooks):
            function = "security_" + FUNCTIONS.get(hook, hook)
            if function in symbols:
                try:
                    self.put("kprobe_events", f"r:adversary/{hook} {function} ret=$retval:s32\n", os.O_APPEND)
                    self.put(f"events/adversary/{hook}/filter", "ret == -1")
                except OSError:
                    continue  # not to be had on this kernel
        self.pipe = os.open(TRACING + "/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self.put("events/adversary/enable", "1")

    def put(self, name, text, flags=os.O_TRUNC):
        fd = os.open(f"{TRACING}/{name}", os.O_WRONLY | flags)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def said_no(self):
        """Since it was asked last."""
        text = b""
        while self.there:
            try:
                text += os.read(self.pipe, 65536)
            except BlockingIOError:
                break
        lines = text.decode("ascii", "replace").splitlines()
        return sorted({line.split(": (")[0].split()[-1] for line in lines if ": (" in line} & self.hooks)

    def end(self):
        if self.there:
            self.put("events/adversary/enable", "0")
            self.put("kprobe_events", "\n")


class Run:
    def __init__(self, place, names, groups, without, mixes, share):
        self.place, self.enforcer, self.trace = place, Enforcer(), None
        self.techniques = [
            t
            for t in TECHNIQUES.values()
            if (not names or t.name in names) and (not groups or t.group in groups) and t.group not in without
        ]
        chosen = part_of(part_of([t.name for t in self.techniques], mixes, "mix__"), share)
        self.techniques = [t for t in self.techniques if t.name in chosen]
        self.reports = {
            t.name: {
                "technique": t.name,
                "group": t.group,
                "what": t.what,
                "action": t.action,
                "control": False,
                "through": False,
                "open": t.open,
                "rule": t.closed_by,
                "closed": None,
                "hooks": [],
                "absent": "",
                "detail": [],
                "status": {},
                "seconds": {},
            }
            for t in self.techniques
        }
        self.marks = {}
        self.missing = {}

    def report(self, technique):
        return self.reports[technique.name]

    # ---- one attempt ----------------------------------------------------------------------------------------------

    def attempt(self, technique, phase, started=None):
        report = self.report(technique)
        started_at = time.monotonic()
        if self.loud:
            sys.stderr.write(f"{time.monotonic():7.2f} {phase} {technique.name}\n")
        counted = phase != "without" and self.guarded
        before = self.enforcer.totals()["denied"] if counted else 0
        one = started or Attempt(technique, self.place, phase)
        if not started:
            one.start()
        if self.trace:
            self.trace.said_no()
        one.go()
        patience = 15.0 if phase == "without" or technique.group == "allowed" else 4.0  # where nothing is refused
        # whoever it was left to may still be at it, until he got through or was refused
        out, code = one.end(patience, (lambda: self.enforcer.totals()["denied"] > before) if counted else None)
        hooks = self.trace.said_no() if self.trace else []
        # read later: whoever reads what a reader of the customers' data wrote carries his labels
        said = one.said() if phase == "without" else one.log
        report["status"][phase] = code
        report["seconds"][phase] = round(time.monotonic() - started_at, 3)
        self.marks.setdefault(technique.name, []).append((phase, one.mark))
        if code == MISTAKE:
            report["detail"].append((f"{phase}: ", one.failure or said))
        denied = self.enforcer.totals()["denied"] - before if counted else 0
        return out or (phase == "closed" and one.arrived()), code, hooks, denied, one.failure or said

    # ---- the phases -----------------------------------------------------------------------------------------------

    def controls(self):
        for technique in self.techniques:
            if technique.group == "tamper":
                continue
            report = self.report(technique)
            out, code, _hooks, _denied, said = self.attempt(technique, "without")
            report["control"] = out
            if code == ABSENT:
                report["absent"] = said.replace("absent: ", "").split("\n")[-1] or "not to be had"
            elif not out:
                report["detail"].append((f"without: status {code}: ", said))

    def programs(self):
        """The hooks that have a program of ours; some have more than one."""
        from exfil_guard.kernel import pins

        kernel = self.enforcer.kernel
        return {name.split("__")[0] for name in pins.available_hooks(kernel, pins.versions(kernel)[0])}

    def policy(self, more=()):
        """The policy, without what this object cannot enforce yet; that is remembered."""
        from exfil_guard.compile import programs as hooks
        from exfil_guard.kernel import pins

        kernel = self.enforcer.kernel
        available = pins.available_hooks(kernel, pins.versions(kernel)[0])
        sendpage = getattr(kernel.environment(), "sendpage", False)
        document = self.place.policy(more)
        kept = []
        for rule in document["rules"]:
            for action in rule["deny"]:
                lacking = hooks.here(hooks.of_action(action, sendpage), available) - available
                if lacking:
                    self.missing[action] = sorted(lacking)
            rule = {**rule, "deny": [action for action in rule["deny"] if action not in self.missing]}
            if rule["deny"]:
                kept.append(rule)
        document["rules"] = kept
        used = {
            name
            for rule in kept
            for key in ("subjects", "resources", "destinations")
            for name in (rule.get(key, {}).get("not", []) if isinstance(rule.get(key), dict) else rule.get(key, []))
        }
        for kind in ("subjects", "resources", "destinations"):
            document[kind] = {
                name: body
                for name, body in document[kind].items()
                if name in used or (kind == "resources" and name == "customers")
            }
        return document

    def enforced(self):
        held = {}
        self.guarded = False
        running = [t for t in self.techniques if t.group != "tamper" and not self.report(t)["absent"]]
        for technique in running:
            if technique.held:
                held[technique.name] = [
                    Attempt(technique, self.place, phase)
                    for phase in (("enforce", "closed") if technique.open else ("enforce",))
                ]
                for one in held[technique.name]:
                    one.start()
        self.enforcer.apply(self.policy())
        self.times["applied"] = time.monotonic() - self.started
        self.guarded = True
        order = sorted(running, key=lambda t: not t.held)
        for number, technique in enumerate(order, 1):
            report = self.report(technique)
            started = held.get(technique.name, [None])[0]
            if technique.refreshed and not technique.open:
                started = Attempt(technique, self.place, "enforce", self.refresh)
                started.start()
            out, code, hooks, denied, said = self.attempt(technique, "enforce", started)
            report["through"] = out
            report["hooks"] = self.decided(technique, hooks)
            report["denied"] = denied
            if technique.group == "allowed":
                if not out:
                    report["detail"].append((f"a policy must not hinder this: status {code}: ", said))
            elif not out and not denied and technique.group != "undecided":
                report["detail"].append((f"did not get through, but nothing was denied: status {code}: ", said))
            if number % 25 == 0:
                self.still_free(technique.name)
        self.still_free(order[-1].name if order else "nothing")
        self.late()
        self.closing(held, running)

    def refresh(self):
        """As the host does it by itself, every minute."""
        self.enforcer.refresh()

    def decided(self, technique, hooks):
        """Of the hooks that said no, those where it was the policy: capabilities are lacking anyway."""
        return [hook for hook in hooks if hook != "capable" or technique.action.startswith("cap-")]

    def still_free(self, after):
        """The runner itself is bound by nothing: otherwise every attempt that starts from it would fail for that."""
        technique = TECHNIQUES["unlabelled"]
        one = Attempt(technique, self.place, "enforce")
        one.start()
        one.go()
        if not one.end(20.0, None)[0]:
            raise RuntimeError(f"after {after}, who has read nothing cannot send any more: the runner carries a label")

    def late(self):
        """What arrived after its attempt had ended."""
        time.sleep(0.5)
        for technique in self.techniques:
            for phase, mark in self.marks.get(technique.name, []):
                if (
                    phase == "enforce"
                    and technique.evidence is flows.arrives
                    and technique.group != "allowed"
                    and os.path.exists(f"{self.place.arrived_folder}/{mark}")
                ):
                    self.report(technique)["through"] = True

    def closing(self, held, running):
        known = [t for t in running if t.open and t.group != "undecided"]
        if not known:
            return
        rules = [{"name": f"closes {t.name}", **t.closed_by} for t in known if t.closed_by]
        self.enforcer.apply(self.policy(rules))
        for technique in known:
            report = self.report(technique)
            started = held.get(technique.name, [None, None])[-1]
            if technique.refreshed:
                started = Attempt(technique, self.place, "closed", self.refresh)
                started.start()
            out, code, _hooks, denied, said = self.attempt(technique, "closed", started)
            report["closed"] = not out and denied > 0
            if not report["closed"]:
                report["detail"].append((f"with the closing rule: status {code}, {denied} denied: ", said))

    def tampering(self):
        known = [t for t in self.techniques if t.group == "tamper"]
        for technique in known:
            report = self.report(technique)
            out, _code, hooks, denied, _said = self.attempt(technique, "enforce")
            report.update(through=out, hooks=self.decided(technique, hooks), denied=denied)
        self.guarded = False
        # real root, bound by nothing, may: last of all, since little is left afterwards
        ends_it = ("unlink_pin", "move_pins", "unmount_pins", "unmount_pins_from_elsewhere")
        missing = [t for t in known if t.name not in ends_it and not self.controlled(t)]
        if missing:  # nobody may in another user namespace; without a policy everybody may
            self.enforcer.drop()
            for technique in missing:
                self.report(technique)["detail"].clear()
                self.controlled(technique)
            self.enforcer.apply(self.place.policy())
        for technique in sorted((t for t in known if t.name in ends_it), key=lambda t: ends_it.index(t.name)):
            if self.place.systemd:
                self.report(technique)["absent"] = (
                    "its control would take away more than the guard of a machine that goes on"
                )
                continue
            self.controlled(technique)

    def controlled(self, technique):
        out, code, _hooks, _denied, said = self.attempt(technique._replace(who="root"), "without")
        self.report(technique)["control"] = out
        if not out:
            self.report(technique)["detail"].append((f"without: status {code}: ", said))
        return out


def told(text):
    """What an attempt left in its file, once nothing is guarded any more."""
    if not text.startswith("/") or "\n" in text:
        return text
    try:
        with open(text, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", default="alice,bob,carol", help="three users; made when there is useradd")
    parser.add_argument("--base", default="/srv/adversary", help="a folder on a disk; it is emptied")
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--without", action="append", default=[], metavar="GROUP")
    parser.add_argument(
        "--reboot",
        action="store_true",
        help="at the end, for labels that reach everybody: the policy is still there then",
    )
    parser.add_argument("--lift", action="store_true", help="only put a policy without rules in force")
    parser.add_argument("--storms", choices=("none", "short", "long"), default="none")
    parser.add_argument("--mixes", default="0/1", help="of the random combinations, which part of how many parts")
    parser.add_argument("--share", default="0/1", help="of all techniques, which part of how many parts")
    parser.add_argument("--loud", action="store_true", help="say each attempt as it begins")
    parser.add_argument("technique", nargs="*")
    options = parser.parse_args()
    unknown = [name for name in options.technique if name not in TECHNIQUES]
    if unknown:
        sys.exit(f"attacks: no technique {', '.join(unknown)}; its name is that of its function")
    if options.lift:
        Enforcer().apply({"rules": []})
        return
    place = Testbed(options.base, options.users.split(","))
    started = time.monotonic()
    place.prepare()
    times = {"prepared": time.monotonic() - started}
    run = Run(place, options.technique, options.group, options.without, options.mixes, options.share)
    wrong, ended, calm = "", {}, {}
    totals = {}
    run.times, run.started, run.loud = times, started, options.loud
    run.guarded = False
    try:
        if place.systemd:
            run.enforcer.apply({"rules": []})  # the site's own would stop the controls
        run.controls()
        calm = storms.controls(place) if options.storms != "none" else {}
        times["controls"] = time.monotonic() - started
        run.enforcer.install()
        times["installed"] = time.monotonic() - started
        run.trace = Trace(run.programs())
        run.enforced()
        times["enforced"] = time.monotonic() - started
        totals = run.enforcer.totals()
        if totals["written"] + totals["lost"] != totals["denied"] + totals["audited"]:
            wrong = f"counters do not add up: {totals}"
        if options.storms != "none":
            ended, failed = storms.run(place, run.enforcer, options.storms == "long", options.loud)
            wrong = "\n".join([wrong, *failed]).strip()
            times["storms"] = time.monotonic() - started
        if not options.reboot:  # else who could change the policy has a label by now
            run.enforcer.apply(place.policy())
            run.tampering()
            if place.systemd:
                run.enforcer.apply({"rules": []})
    except Exception:
        wrong = traceback.format_exc()
    finally:
        if run.trace:
            run.trace.end()
        place.end()
    for report in run.reports.values():
        report["detail"] = "\n".join(what + told(text)[-1500:] for what, text in report["detail"])
        print(json.dumps(report), flush=True)
    print(
        json.dumps(
            {
                "end": True,
                "kernel": platform.release(),
                "seconds": round(time.monotonic() - started, 1),
                "wrong": wrong,
                "missing": run.missing,
                "totals": {k: v for k, v in totals.items() if k != "reasons"},
                "reasons": totals.get("reasons"),
                "times": times,
                "storms": ended,
                "calm": calm,
            }
        ),
        flush=True,
    )
    if options.reboot:
        os.sync()
        os.execvp("systemctl", ["systemctl", "--force", "--force", "reboot"])


main()
