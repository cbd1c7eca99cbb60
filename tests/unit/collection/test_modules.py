# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules and the action plugin over a kernel in memory: what is asked of the host, and how often."""

import datetime
import json
import os
import sys

import pytest
import yaml
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.exfil.guard.plugins.action import enforcer as action
from ansible_collections.exfil.guard.plugins.module_utils import _installed
from ansible_collections.exfil.guard.plugins.module_utils._guard import errors, host_api, layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import install
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import Store
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import pins
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer as programs
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import prerequisites
from ansible_collections.exfil.guard.plugins.modules import enforcer, events_info, policy, status_info
from ansible_collections.exfil.guard.plugins.plugin_utils import _package
from fake_kernel import GOOD, FakeKernel

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "host"))
from fake_system import FakeSystem


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
def host(kernel, tmp_path):
    """The operations that a module calls, on a host in memory whose package has the object file "object"."""
    (tmp_path / "library").mkdir()
    path = tmp_path / "library" / "guard.bpf.o"
    path.write_bytes(b"object")
    paths = host_api.Paths(canary=str(tmp_path / "canary"), lock=str(tmp_path / "lock"), object=str(path))
    return host_api.Host(kernel, FakeSystem(), Store(str(tmp_path / "state")), datetime.date(2026, 6, 1), paths)


# ---- what the host lacks ------------------------------------------------------------------------------------------


def test_a_good_host_lacks_nothing(kernel, monkeypatch):
    monkeypatch.setattr(prerequisites, "has_bpf_lsm", lambda: True)
    assert prerequisites.missing(kernel) == []


def test_what_the_role_can_mend_has_a_name(kernel, monkeypatch):
    monkeypatch.setattr(prerequisites, "has_bpf_lsm", lambda: True)
    kernel.found = GOOD._replace(libbpf="", lsms=("lockdown", "capability", "apparmor"))
    found, lsm = prerequisites.missing(kernel), prerequisites.wanted_lsms(kernel)
    assert sorted(each["name"] for each in found) == ["libbpf", "lsm"]
    assert lsm == "lockdown,apparmor,bpf"


def test_a_kernel_without_the_bpf_lsm_cannot_be_mended(kernel, monkeypatch):
    monkeypatch.setattr(prerequisites, "has_bpf_lsm", lambda: False)
    kernel.found = GOOD._replace(lsms=("capability", "apparmor"))
    assert "other" in [each["name"] for each in prerequisites.missing(kernel)]


def test_bpf_lsm_is_looked_up_in_btf(tmp_path):
    path = tmp_path / "vmlinux"
    assert not prerequisites.has_bpf_lsm(str(path))
    path.write_bytes(b"\0bpf_lsm_file_opener\0")
    assert not prerequisites.has_bpf_lsm(str(path))
    path.write_bytes(b"\0bpf_lsm_file_open\0")
    assert prerequisites.has_bpf_lsm(str(path))


def test_nothing_is_installed_on_a_host_that_lacks_something(host, kernel, monkeypatch):
    monkeypatch.setattr(prerequisites, "has_bpf_lsm", lambda: True)
    kernel.found = GOOD._replace(libbpf="")
    with pytest.raises(errors.PolicyErrors, match="libbpf.so.1 is not there. Install libbpf 1.0"):
        host.install("/nowhere")
    assert kernel.calls == []


def test_check_mode_tells_everything_of_a_host_that_lacks_something(host, kernel, monkeypatch, tmp_path):
    monkeypatch.setattr(prerequisites, "has_bpf_lsm", lambda: True)
    monkeypatch.setattr(install, "systemctl", lambda arguments: "")
    monkeypatch.setattr(
        install.ensure,
        "__kwdefaults__",
        dict(install.ensure.__kwdefaults__, root=str(tmp_path / "root"), control=lambda arguments: ""),
    )
    kernel.found = GOOD._replace(libbpf="", lsms=("lockdown", "capability", "yama"))
    path = tmp_path / "package.zip"
    path.write_bytes(_package.build()[1])
    result = host.install(str(path) + install.LIBRARY, check=True)
    assert result["changed"] and result["lsm"] == "lockdown,yama,bpf"
    assert sorted(each["name"] for each in result["lacking"]) == ["libbpf", "lsm"]
    lines = result["diff"]["prepared"].splitlines()
    assert "+ /usr/lib/exfil-guard/guard.bpf.o" in lines and "+ enforcer " + result["version"] in lines
    assert kernel.calls == [] and sorted(os.listdir(tmp_path)) == ["library", "package.zip"]


# ---- policy: is the enforcer in order? ----------------------------------------------------------------------------


def test_an_enforcer_in_order(host, kernel):
    programs.ensure(kernel, b"object")
    assert host.enforcer_problem(host.installation_problems()) == ""


def test_no_enforcer(host):
    assert host.enforcer_problem(host.installation_problems()) == "the enforcer is not installed"


def test_an_enforcer_of_another_release(host, kernel):
    programs.ensure(kernel, b"older")
    assert host.enforcer_problem(host.installation_problems()) == "the enforcer in the kernel is of another release"


def test_a_damaged_enforcer(host, kernel):
    programs.ensure(kernel, b"object")
    kernel.unlink(pins.map_path(kernel, "control"))
    assert host.enforcer_problem(host.installation_problems()).startswith(
        "the enforcer is incomplete: no pin for the maps control"
    )


def test_a_policy_without_an_enforcer_asks_for_the_role(host, kernel):
    result = policy.put_in_force(host_api, host, {}, False, False)
    assert result["failed"] and result["enforcer_needed"] and not result["changed"]
    assert result["msg"] == "the enforcer is not installed. Run the role exfil.guard.enforcer"
    assert kernel.calls == []


# ---- whole modules on a host without the package ------------------------------------------------------------------


def ended(module, arguments, monkeypatch, capsys):
    monkeypatch.setattr(_installed, "installed", lambda library="": None)
    for each in (status_info, events_info, policy):
        monkeypatch.setattr(each, "installed", lambda: None)
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "module, arguments",
    [(enforcer, {}), (policy, {"document": {"policy": 1}}), (policy, {"state": "confirmed", "generation": 3})],
)
def test_the_package_is_asked_for(module, arguments, monkeypatch, capsys):
    result = ended(module, dict(arguments, package_digest="1" * 64), monkeypatch, capsys)
    assert result["package_required"] and result["installed"] is None and not result["changed"]


def test_a_document_is_required(monkeypatch, capsys):
    assert "document" in ended(policy, {}, monkeypatch, capsys)["msg"]


def test_a_pristine_host_has_no_policy_to_remove(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(policy, "TRACES", (str(tmp_path / "pins"),))
    result = ended(policy, {"state": "absent", "package_digest": "1" * 64}, monkeypatch, capsys)
    assert not result["changed"] and "package_required" not in result
    (tmp_path / "pins").mkdir()
    assert ended(policy, {"state": "absent", "package_digest": "1" * 64}, monkeypatch, capsys)["package_required"]


def test_status_of_a_pristine_host(monkeypatch, capsys):
    result = ended(status_info, {}, monkeypatch, capsys)
    assert result["status"]["installed"] is False and result["status"]["in_force"] is False


def test_events_of_a_pristine_host(monkeypatch, capsys):
    result = ended(events_info, {}, monkeypatch, capsys)
    assert result["msg"] == "the package is not installed. Run the role exfil.guard.enforcer"


def test_an_error_is_told_in_words(monkeypatch, capsys):
    def work():
        raise errors.EnforcerError("the disk is full", "Free some space")

    with patch_module_args({}), pytest.raises(SystemExit):
        _installed.run(basic.AnsibleModule({}), host_api, work)
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] and result["msg"] == "the disk is full. Free some space"


# ---- results are what the documentation says --------------------------------------------------------------------


def documented(module):
    return yaml.safe_load(module.RETURN)


def test_status_has_what_is_documented(host, kernel):
    programs.ensure(kernel, b"object")
    found = host.status()
    for key, each in documented(status_info)["status"]["contains"].items():
        assert found[key] is None or isinstance(found[key], TYPES[each["type"]]), key


def test_events_have_what_is_documented():
    keys = set()
    for fields in ({"device": 1, "path": b"a\0", "path_size": 2}, {"action": 3, "family": 2, "address": b"\x0a\0\0\1"}):
        raw = dict.fromkeys(layout.Event._fields, 0)
        raw.update(
            {"address": b"", "comm": b"cat", "rule": b"no", "path": b"", "executable": b"", "cgroup": b""}, **fields
        )
        event = events.decode_all([layout.EVENT.pack(layout.Event(**raw))], FakeSystem(), 0)[0].to_json()
        told = documented(events_info)["events"]["contains"]
        assert all(
            event[key] is None or isinstance(event[key], TYPES[told[key]["type"]]) for key in set(told) & set(event)
        )
        keys |= set(event)
    assert keys >= set(documented(events_info)["events"]["contains"])


TYPES = {"bool": bool, "str": str, "int": int, "list": list, "dict": dict}


# ---- action plugin ------------------------------------------------------------------------------------------------


class Action(action.ActionModule):
    def __init__(self, host_has_it):
        self.sent, self.host_has_it = [], host_has_it

    def validate_argument_spec(self, argument_spec):
        return None, {"state": "present"}

    def _execute_module(self, module_name, module_args, task_vars):
        self.sent.append(dict(module_args))
        if self.host_has_it or "package" in module_args:
            return {"changed": not self.host_has_it}
        return {"changed": False, "package_required": True, "installed": None}


@pytest.fixture(autouse=True)
def no_base_run(monkeypatch):
    monkeypatch.setattr(action.ActionBase, "run", lambda *_: {})


def test_a_host_with_the_package_costs_one_small_call():
    plugin = Action(True)
    assert plugin.run(task_vars={}) == {"changed": False}
    assert plugin.sent == [{"state": "present", "package_digest": _package.build()[0]}]


def test_a_host_without_it_is_sent_the_package():
    plugin = Action(False)
    assert plugin.run(task_vars={}) == {"changed": True}
    assert ["package" in each for each in plugin.sent] == [False, True]
