# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fragments that the collection ships: each renders with its variables into a valid document, and its page names
everything that it denies."""

import datetime
import json
import re
from pathlib import Path

import jinja2
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions
from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline

ROOT = Path(__file__).resolve().parents[3]
LOCKED_DOWN = ROOT / "policies" / "exfil.guard" / "locked-down-root.yml.j2"
PAGE = ROOT / "docs" / "locked-down-root.md"
TODAY = datetime.date(2026, 12, 1)
SERVICE = {"services": ["web.service"]}


def document(**variables):
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["to_json"] = json.dumps
    source = LOCKED_DOWN.read_text(encoding="utf-8")
    template = pipeline.Template(LOCKED_DOWN.name, source)
    return pipeline.document([template], lambda text: environment.from_string(text).render(**variables), TODAY)


def denied(found):
    return {action for rule in found["rules"] for action in rule["deny"]}


def test_the_fragment_binds_a_service():
    found = document(locked_down_root=SERVICE)
    assert found["subjects"] == {"locked-down-root": SERVICE}
    assert not [rule for rule in found["rules"] if "except" in rule or "mode" in rule]
    assert "cap-setuid" not in denied(found)  # a service keeps its unit, whatever its user is


def test_the_fragment_binds_root_but_not_the_units_of_the_system():
    found = document(locked_down_root={"users": ["root"]})
    bound = [rule for rule in found["rules"] if rule.get("subjects")]
    assert bound and all(rule["except"] == ["locked-down-root-system"] for rule in bound)
    assert {"cap-setuid", "cap-setgid"} <= denied(found)


def test_the_variables_of_the_fragment():
    found = document(
        locked_down_root=SERVICE,
        locked_down_except={"deploy": {"users": ["root"], "services": ["deploy.service"]}},
        locked_down_writable=["/srv/web/**"],
        locked_down_sockets=["/run/db.sock"],
        locked_down_ports=[22],
        locked_down_mode="audit",
        locked_down_key_helpers=True,
    )
    assert all(rule["mode"] == "audit" and rule["except"] == ["deploy"] for rule in found["rules"])
    assert "/srv/web/**" in found["resources"]["locked-down-root-writable"]["paths"]
    assert "/run/db.sock" in found["resources"]["locked-down-root-sockets"]["paths"]
    assert found["destinations"]["locked-down-root-logins"] == {"ports": [22]}
    assert "execute" not in denied(found)


def test_every_family_but_the_usual_ones_is_denied():
    families = {name + "-socket" for name in actions.FAMILIES} - {"unix-socket", "ipv4-socket", "ipv6-socket"}
    assert denied(document(locked_down_root=SERVICE)) & families == families - {"netlink-socket"}


@pytest.mark.parametrize("root", [SERVICE, {"users": ["root"]}])
def test_the_page_explains_each_rule_and_each_action(root):
    page = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = document(locked_down_root=root)
    named = set(re.findall(r"`([^`]+)`", page))
    actions_there = denied(found) - {name for name in denied(found) if name.endswith("-socket")}
    assert actions_there - named == set()
    assert {rule["name"].partition(": ")[2] for rule in found["rules"]} - named == set()
    assert set(re.findall(r"^# (locked_down_\w+)", LOCKED_DOWN.read_text(encoding="utf-8"), re.MULTILINE)) <= named
