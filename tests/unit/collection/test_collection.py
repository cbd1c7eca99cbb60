# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shipped: the folder of links, the built archive, documentation that renders and examples that would run."""

import ast
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
LINKS = os.path.join(ROOT, "collections", "ansible_collections", "exfil", "guard")
MODULES = ("audit_info", "enforcer", "events_info", "explain", "learn", "observe", "policy", "status_info", "validate")
ON_THE_CONTROLLER = ("explain", "learn", "validate")  # action plugins; the module of the name is their documentation
PLAYBOOKS = ("certificates", "drift", "learn", "observe", "plan", "pull", "report", "rollback", "rollout", "validate")
ROLES = ("audit", "enforcer", "observe", "policy", "pull")
SHIPPED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSES",
    "README.md",
    "REUSE.toml",
    "SECURITY.md",
    "bpf",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "policies",
    "roles",
    "schemas",
    "site.yml",
)


def run(*command):
    environment = dict(
        os.environ,
        ANSIBLE_CONFIG=os.path.join(ROOT, "ansible.cfg"),
        NO_COLOR="1",
        PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
    )
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def module_documents(name):
    """The constants of a module, without importing it."""
    with open(os.path.join(ROOT, "plugins", "modules", name + ".py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    return {key: yaml.safe_load(found[key]) for key in ("DOCUMENTATION", "EXAMPLES", "RETURN")}


# ---- layout -------------------------------------------------------------------------------------------------------


def test_every_shipped_entry_has_a_relative_link():
    assert sorted(os.listdir(LINKS)) == sorted((*SHIPPED, "galaxy.yml"))


@pytest.mark.parametrize("name", (*SHIPPED, "galaxy.yml"))
def test_links_resolve(name):
    assert os.readlink(os.path.join(LINKS, name)) == "../../../../" + name
    assert os.path.realpath(os.path.join(LINKS, name)) == os.path.join(os.path.realpath(ROOT), name)
    assert os.path.exists(os.path.join(LINKS, name))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    run("ansible-galaxy", "collection", "build", ".", "--output-path", str(folder))
    with tarfile.open(os.path.join(folder, os.listdir(folder)[0])) as found:
        return {each.name: each for each in found.getmembers()}


def test_the_archive_holds_what_the_collection_needs(archive):
    with open(os.path.join(ROOT, "roles", "enforcer", "files", "guard.bpf.o"), "rb") as file:
        assert archive["roles/enforcer/files/guard.bpf.o"].size == len(file.read())
    for name in MODULES:
        assert f"plugins/modules/{name}.py" in archive
    for name in ("lifecycle/apply", "lifecycle/enforcer", "host/install", "kernel/bpf"):
        assert f"plugins/module_utils/_guard/{name}.py" in archive
    for name in PLAYBOOKS:
        assert f"playbooks/{name}.yml" in archive
    for name in (
        "plugins/filter/certificate_report.py",
        "roles/enforcer/files/proved.json",
        "plugins/action/enforcer.py",
        "plugins/action/policy.py",
        "plugins/callback/plan.py",
        "plugins/plugin_utils/_package.py",
        "plugins/plugin_utils/_report/page.html.j2",
        "plugins/plugin_utils/_report/page.css",
        "plugins/plugin_utils/_report/page.js",
        "plugins/module_utils/_installed.py",
        "meta/runtime.yml",
        "README.md",
        "LICENSES/GPL-3.0-or-later.txt",
        "roles/enforcer/tasks/main.yml",
        "roles/policy/tasks/main.yml",
        "bpf/guard.bpf.c",
        "site.yml",
        "schemas/policy.schema.json",
        "schemas/audit-record.schema.json",
        "docs/audit.md",
        "schemas/observation.schema.json",
        "docs/observe.md",
        "roles/observe/files/observe.bpf.o",
        "bpf/observer/observe.h",
        "bpf/observer/observe.bcc.c",
        "plugins/action/observe.py",
        "plugins/module_utils/observe/collect.py",
        "roles/audit/templates/exfil-guard-audit.service.j2",
        "roles/enforcer/files/exfil-guard-boot.service",
        "policies/exfil.guard/locked-down-root.yml.j2",
    ):
        assert name in archive


def test_the_archive_holds_nothing_else(archive):
    top = {name.split("/")[0] for name in archive}
    assert top - {"MANIFEST.json", "FILES.json"} == set(SHIPPED)
    assert not [name for name in archive if "__pycache__" in name or name.endswith((".pyc", ".tmp"))]
    assert not [name for name, each in archive.items() if each.issym() or each.islnk()]


def test_the_changelog_is_in_order():
    run("antsibull-changelog", "lint")


def test_version_has_a_changelog():
    with open(os.path.join(ROOT, "galaxy.yml"), encoding="utf-8") as file:
        version = yaml.safe_load(file)["version"]
    with open(os.path.join(ROOT, "changelogs", "changelog.yaml"), encoding="utf-8") as file:
        assert version in yaml.safe_load(file)["releases"]


def test_plugins_name_a_release_of_the_changelog_as_their_first():
    with open(os.path.join(ROOT, "changelogs", "changelog.yaml"), encoding="utf-8") as file:
        releases = set(yaml.safe_load(file)["releases"])
    named = {}
    for folder, _folders, files in os.walk(os.path.join(ROOT, "plugins")):
        for name in files:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    versions = set(re.findall(r"^ *version_added: (\S+)$", file.read(), re.MULTILINE))
                named.update(dict.fromkeys(versions, name))
    assert named and set(named) <= releases, named


# ---- documentation ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered():
    return json.loads(run("ansible-doc", "--json", "-t", "module", *("exfil.guard." + name for name in MODULES)))


@pytest.mark.parametrize("name", MODULES)
def test_documentation_renders_with_its_fragments(rendered, name):
    found = rendered["exfil.guard." + name]
    assert set(found["doc"]["attributes"]) == {"check_mode", "diff_mode", "idempotent", "platform"}
    assert found["return"]
    assert "error" not in json.dumps(found["doc"].get("deprecated") or "")


def test_role_documentation_renders():
    found = json.loads(run("ansible-doc", "--json", "-t", "role", *("exfil.guard." + name for name in ROLES)))
    for name in ROLES:
        assert found["exfil.guard." + name]["entry_points"]["main"]["short_description"]


def test_callback_documentation_renders():
    found = json.loads(run("ansible-doc", "--json", "-t", "callback", "exfil.guard.plan"))["exfil.guard.plan"]["doc"]
    assert sorted(found["options"]) == ["json", "markdown"]


def test_documented_options_of_explain_and_validate_are_what_they_take():
    from ansible_collections.exfil.guard.plugins.action import explain, learn, validate

    for name, spec in (
        ("explain", {"policies": {"type": "str"}, **explain.WHO, **explain.WHAT}),
        ("learn", learn.OPTIONS),
        ("validate", validate.OPTIONS),
    ):
        documented = module_documents(name)["DOCUMENTATION"]["options"]
        assert {
            key: {part: each[part] for part in ("type", "default", "elements", "required") if part in each}
            for key, each in documented.items()
        } == spec


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ON_THE_CONTROLLER])
def test_documented_options_are_the_argument_spec(name, monkeypatch):
    module = __import__("ansible_collections.exfil.guard.plugins.modules." + name, fromlist=["main"])
    seen = {}

    class Stop(Exception):
        pass

    def stand_in(argument_spec, **_):
        seen.update(argument_spec)
        raise Stop

    monkeypatch.setattr(module, "AnsibleModule", stand_in)
    with pytest.raises(Stop):
        module.main()
    documented = module_documents(name)["DOCUMENTATION"].get("options", {})
    assert set(seen) == set(documented)
    for option, spec in seen.items():
        for key in ("type", "choices", "default"):
            assert spec.get(key) == documented[option].get(key), (option, key)


@pytest.mark.parametrize("name", MODULES)
def test_examples_fit_the_options(name):
    options = module_documents(name)["DOCUMENTATION"].get("options", {})
    internal = {key for key, each in options.items() if str(each["description"]).startswith("Set by")}
    spec = {
        key: {part: each[part] for part in ("type", "choices", "default") if part in each}
        for key, each in options.items()
        if key not in internal
    }
    tasks = module_documents(name)["EXAMPLES"]
    ours = [task for task in tasks if "exfil.guard." + name in task]
    assert ours
    for task in ours:
        assert not set(task) & {"action", "local_action"}
        result = ArgumentSpecValidator(spec).validate(task["exfil.guard." + name] or {})
        assert not result.error_messages


def test_action_group_names_every_module():
    with open(os.path.join(ROOT, "meta", "runtime.yml"), encoding="utf-8") as file:
        groups = yaml.safe_load(file)["action_groups"]
    found = sorted(name[:-3] for name in os.listdir(os.path.join(ROOT, "plugins", "modules")) if name.endswith(".py"))
    assert groups["guard"] == found == sorted(MODULES)


# ---- roles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROLES)
def test_argument_specs_match_defaults(name):
    folder = os.path.join(ROOT, "roles", name)
    with open(os.path.join(folder, "defaults", "main.yml"), encoding="utf-8") as file:
        defaults = yaml.safe_load(file)
    with open(os.path.join(folder, "meta", "argument_specs.yml"), encoding="utf-8") as file:
        options = yaml.safe_load(file)["argument_specs"]["main"]["options"]
    assert {key: each["default"] for key, each in options.items()} == defaults
    assert all(key.startswith("exfil_guard_") for key in defaults)


@pytest.mark.parametrize(
    "name, options",
    [("certificate_report", ["_input"]), ("fleet_report", ["_input", "groups", "now", "planned", "status", "trail"])],
)
def test_filter_documentation_renders(name, options):
    found = json.loads(run("ansible-doc", "--json", "-t", "filter", "exfil.guard." + name))
    assert sorted(found["exfil.guard." + name]["doc"]["options"]) == options


@pytest.mark.parametrize(
    "path",
    ["site.yml"] + [f"playbooks/{name}.yml" for name in PLAYBOOKS] + ["exfil.guard." + name for name in PLAYBOOKS],
)
def test_playbooks_parse(path):
    run("ansible-playbook", "--syntax-check", path)
