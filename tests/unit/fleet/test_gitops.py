# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts of inventories/example/ci, as a merge request and a push call them, with a Git server on this machine and
the example's hosts, simulated."""

import json
import os
import shutil
from xml.etree import ElementTree

import pytest
import yaml
from example import EXAMPLE, HOSTS, Example, run

NOBODY, METADATA = "nothing leaves for where no group has business", "instance credentials are for the metadata agent"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The first commit is in force everywhere."""
    found = Example(tmp_path_factory.mktemp("gitops"))
    try:
        done = found.run("ci/deploy", "HEAD")
        assert done.code == 0, done.text
        found.first = found.git("rev-parse", "HEAD")
        yield found
    finally:
        found.close()


@pytest.fixture
def site(deployed):
    """The same at each test's begin, and what is in force then."""
    deployed.sign("alice")
    deployed.git("reset", "-q", "--hard", deployed.first)
    deployed.before = deployed.everywhere()
    return deployed


def checked(site, *arguments, **environment):
    results = site.folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    return site.run("ci/check", *(arguments or ("HEAD",)), str(results), **environment), results


def test_the_first_deployment(deployed):
    assert all(NOBODY in rules and not any(rules.values()) for rules in deployed.everywhere())
    assert {deployed.fleet.status(name)["revision"] for name in HOSTS} == {deployed.first}
    again = deployed.run("ci/deploy", "HEAD")
    assert again.code == 0 and f"Nothing to deploy: commit {deployed.first[:12]} is in force." in again.text
    assert "roll out" not in again.text
    assert deployed.git("worktree", "list").count("\n") == 0  # no checkout is left


def test_a_merge_request_gets_its_plan_and_its_tests(site):
    site.edit("policies/all.yml.j2", "destinations: [metadata]", "destinations: [metadata, multicast]")
    site.commit("Credentials do not go by multicast", push=False)
    comment = site.folder / "comment"
    done, results = checked(site, EXFIL_GUARD_COMMENT=f"cat >{comment}")
    assert done.code == 0, done.text
    told = (results / "plan.md").read_text()
    assert comment.read_text() == told and METADATA in told and "4 would change" in told
    assert json.loads((results / "plan.json").read_text())["kind"] == "plan"
    root = ElementTree.parse(results / "policies.xml").getroot()
    assert sorted(suite.get("name") for suite in root) == sorted(HOSTS) and root.get("failures") == "0"
    assert site.everywhere() == site.before


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "deny: [connect, send]\n    destinations: [metadata]",
            "deny: [conect]\n    destinations: [metadata]",
            "'conect'",
        ),
        (
            "address: 198.51.100.7, port: 443, expect: deny",
            "address: 198.51.100.7, port: 443, expect: allow",
            "the assertion does not hold",
        ),
        ("mode: {{ policy_mode }}", "mode: {{ policy_mod }}", "policy_mod"),
    ],
)
def test_a_bad_policy_is_refused_before_a_host_is_reached(site, old, new, message):
    site.edit("policies/all.yml.j2", old, new)
    site.commit("bad", push=False)
    done, results = checked(site)
    assert done.code != 0 and message in done.text and "NOT VALID" in done.text
    assert ElementTree.parse(results / "policies.xml").getroot().get("failures") != "0"
    assert not (results / "plan.md").exists()
    done = site.run("ci/deploy", "HEAD")
    assert done.code != 0 and message in done.text and "==> plan" not in done.text
    assert site.everywhere() == site.before


@pytest.mark.parametrize("signer", ["", "mallory"])
def test_a_commit_that_nobody_signed_who_may_is_refused(site, signer):
    site.sign(signer)
    site.edit("group_vars/all.yml", "policy_mode: enforce", "policy_mode: audit")
    commit = site.commit("bad", push=False)
    done, results = checked(site)
    told = f"commit {commit[:12]} is not signed by anyone who may sign"
    assert done.code == 1 and told in done.text and os.listdir(results) == []
    done = site.run("ci/deploy", commit)
    assert done.code == 1 and told in done.text and "PLAY" not in done.text
    # its author puts himself on a list in the repository
    with open(site.work / "allowed_signers", "w", encoding="utf-8") as file:
        file.write("mallory@example.com " + (site.folder / "mallory.pub").read_text())
    site.commit("worse", push=False)
    done = site.run("ci/deploy", "HEAD", EXFIL_GUARD_SIGNERS=str(site.work / "allowed_signers"))
    assert done.code == 1 and "lies in the repository" in done.text and "PLAY" not in done.text
    assert site.everywhere() == site.before


def test_who_may_sign_has_to_be_said(site):
    done = site.run("ci/deploy", "HEAD", EXFIL_GUARD_SIGNERS="")
    assert done.code != 0 and "set it to the file of those who may sign" in done.text and "PLAY" not in done.text
    done = site.run("ci/deploy", "nope")
    assert done.code == 1 and "there is no commit nope" in done.text and "PLAY" not in done.text


def test_what_lies_beside_the_commit_does_not_count(site):
    site.edit("group_vars/all.yml", "policy_mode: enforce", "policy_mode: audit")
    done = site.run("ci/deploy", "HEAD")
    assert done.code == 0 and "Nothing to deploy" in done.text
    assert site.everywhere() == site.before


def test_a_push_to_the_server_is_deployed_and_an_unsigned_one_is_not(site):
    clone = site.folder / "deploy"
    if not clone.exists():
        run("git", "clone", "-q", str(site.bare), str(clone), env=dict(os.environ, **site.environment()))
        (site.bare / "hooks" / "post-receive").symlink_to(clone / "ci" / "post-receive")
    site.edit("policies/all.yml.j2", "destinations: [metadata]", "destinations: [metadata, multicast]")
    site.git("commit", "-q", "-a", "-m", "more")
    pushed = site.run("git", "push", "-f", "origin", "HEAD:main")
    commit = site.git("rev-parse", "HEAD")
    assert pushed.code == 0 and f"Commit {commit[:12]} is in force." in pushed.text, pushed.text
    assert {site.fleet.status(name)["revision"] for name in HOSTS} == {commit}
    assert not any(site.fleet.status(name)["pending"] for name in HOSTS)
    # other branches are nobody's business
    assert "==>" not in site.run("git", "push", "origin", "HEAD:refs/heads/topic").text
    site.sign("")
    site.edit("group_vars/all.yml", "policy_mode: enforce", "policy_mode: audit")
    site.git("commit", "-q", "-a", "-m", "unsigned")
    pushed = site.run("git", "push", "origin", "HEAD:main")
    assert "is not signed by anyone who may sign" in pushed.text and "PLAY" not in pushed.text
    assert not any(any(rules.values()) for rules in site.everywhere())
    (site.bare / "hooks" / "post-receive").unlink()


def test_a_canary_that_fails_stops_it_and_the_next_deployment_mends(site):
    site.edit("policies/web.yml.j2", "deny: [execute]", "deny: [execute, write]")
    site.commit("web", push=False)
    down = site.fleet.path("web1.example.com", "canary-fails")
    open(down, "w", encoding="ascii").close()
    try:
        done = site.run("ci/deploy", "HEAD")
        assert done.code != 0 and "==> confirm" not in done.text and "the canary was not denied" in done.text
        assert site.fleet.status("web2.example.com")["revision"] != site.git("rev-parse", "HEAD")
    finally:
        os.unlink(down)
    done = site.run("ci/deploy", "HEAD")
    assert done.code == 0, done.text
    assert site.fleet.status("web2.example.com")["revision"] == site.git("rev-parse", "HEAD")


def test_the_pipeline_for_gitlab_calls_these_scripts():
    with open(os.path.join(EXAMPLE, "ci", "gitlab.yml"), encoding="utf-8") as file:
        jobs = yaml.safe_load(file)
    called = [line.split()[0] for job in jobs.values() for line in job.get("script", ())]
    assert called == ["/srv/deploy/ci/check", "/srv/deploy/ci/deploy"]
    assert all(os.access(os.path.join(EXAMPLE, "ci", os.path.basename(each)), os.X_OK) for each in called)
