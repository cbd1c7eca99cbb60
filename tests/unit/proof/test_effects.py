# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The prover assumes about functions and maps what effects.py lists, and nothing else."""

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions
from arithmetic import fresh
from effects import EFFECTS, ENDPOINT_ACTIONS, PATH_ACTIONS, TABLES, TableError, check_functions, check_maps
from marks import ASKED, DENIED, EMITTED, ERROR, LOST, MISPLACED, TAMPER, UNBOUND
from properties import EPERM, Rules, violations
from state import Pointer, State

ALL_MARKS = frozenset({DENIED, ERROR, LOST, MISPLACED, TAMPER, UNBOUND})


def returned(function, result, marks=ALL_MARKS):
    """The marks after the function returned ``result``, where those marks were set before."""
    state = State([result, *[None] * 10])
    state.arguments = (None,) * 6
    state.ghost = frozenset(marks)
    Rules(0, 1).after(state, function)
    return state.ghost


def test_the_table_fits_an_object_with_exactly_its_functions():
    check_functions(EFFECTS)
    check_functions([*EFFECTS, "sb_remount", "same_groups"])
    check_maps([*TABLES, "events"])


def test_a_refusal_that_is_not_listed_is_an_error():
    expected = "the object has a function refuse_more that EFFECTS does not list: add it in proof/bytecode/effects.py"
    with pytest.raises(TableError, match=f"^{expected}$"):
        check_functions([*EFFECTS, "refuse_more"])
    with pytest.raises(TableError, match=f"^{expected}$"):
        returned("refuse_more", 0)


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_a_function_that_the_object_lacks_is_an_error(name):
    expected = f"^EFFECTS lists what the object has no function for: {name}; edit proof/bytecode/effects.py$"
    with pytest.raises(TableError, match=expected):
        check_functions(EFFECTS.keys() - {name})


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_map_that_the_object_lacks_is_an_error(name):
    expected = f"^TABLES lists what the object has no map for: {name}; edit proof/bytecode/effects.py$"
    with pytest.raises(TableError, match=expected):
        check_maps(TABLES.keys() - {name})


@pytest.mark.parametrize("name", ["tell_more", "write_more", "emit_more", "guard_more", "label_more", "allowed_more"])
@pytest.mark.parametrize("result", [0, 1, EPERM, None])
def test_a_function_that_is_not_listed_has_no_assumed_effect(name, result):
    result = fresh("result") if result is None else result
    assert returned(name, result) == ALL_MARKS
    assert returned(name, result, ()) == frozenset()
    # marks that belong to the function that returns end with it
    assert returned(name, result, {ASKED, EMITTED, DENIED}) == {DENIED}
    rules, state = Rules(0, 1), State([None] * 11)
    rules.before(state, name, "sb_remount")
    assert state.ghost == frozenset() and not rules.precise(name)
    rules.missed(state, "events", "full", name)
    assert state.ghost == frozenset()


def test_a_listed_refusal_that_returns_0_discards_its_grounds():
    assert returned("refuse_action", 0) == ALL_MARKS - {TAMPER, LOST}
    assert returned("refuse_action", 1) == ALL_MARKS
    assert returned("refuse_action", fresh("result")) == ALL_MARKS


@pytest.mark.parametrize("name", sorted(name for name, effect in EFFECTS.items() if name.startswith("refuse_")))
def test_each_refusal_is_listed_as_one(name):
    assert EFFECTS[name].discards_on_zero and EFFECTS[name].purpose


def test_the_verdict_is_a_ground_to_deny():
    assert DENIED in returned("guard_verdict", 2, ())
    assert DENIED in returned("guard_verdict", fresh("verdict"), ())
    assert returned("guard_verdict", 0, ()) == returned("guard_verdict", 1, ()) == frozenset()


def test_no_action_on_an_object_is_overlooked():
    """An error is resolved where no action of the set is requested, so that each action has to be in its set."""
    for action in actions.TABLE:
        on_object = action.number < layout.PLAIN
        assert bool(PATH_ACTIONS >> action.number & 1) == (on_object and action.object == actions.FILE)
        assert bool(ENDPOINT_ACTIONS >> action.number & 1) == (on_object and action.object != actions.FILE)


def test_a_map_that_is_not_listed_has_no_assumed_effect():
    rules = Rules(0, 1)
    for kind in ("outer", "array", "hash", "storage", "full", "other"):
        state = State([None] * 11)
        rules.missed(state, "other_map", kind, "guard_walk")
        assert state.ghost == frozenset()
    assert list(rules.once("other_map", 0, 8)) == [] and not rules.looked_up("other_map")


@pytest.mark.parametrize("name", sorted(name for name, table in TABLES.items() if table.decides))
def test_a_missing_table_is_an_error_of_the_path(name):
    state = State([None] * 11)
    Rules(0, 1).missed(state, name, "outer", "guard_walk")
    assert state.ghost == {ERROR}


def test_only_bytes_behind_the_version_are_read_once():
    rules = Rules(0, 1)
    assert list(rules.once("inodes", 0, 8)) == [4, 5, 6, 7] and list(rules.once("inodes", 0, 4)) == []
    assert list(rules.once("control", 0, 4)) == [0, 1, 2, 3] and rules.looked_up("control")
    assert not rules.looked_up("inodes") and len(list(rules.once("inodes", None, 8))) == 508


@pytest.mark.parametrize(
    "result, marks, expected",
    [
        (0, (), {}),
        (EPERM, {DENIED}, {}),
        (EPERM, (), {"audit": "denies although the verdict is not to deny"}),
        (0, {DENIED}, {"closed": "allows what guard_verdict denied"}),
        (0, {UNBOUND}, {"binding": "allows although it could not be computed which rules bind the task"}),
        (
            7,
            {ERROR},
            {"returns": "returns 7", "closed": "allows although data that the decision depends on could not be read"},
        ),
        (
            Pointer(("record",), 0),
            {DENIED},
            {"returns": "returns something else", "closed": "allows what guard_verdict denied"},
        ),
    ],
)
def test_what_the_end_of_a_program_violates(result, marks, expected):
    end = State([result, *[None] * 10])
    end.ghost = frozenset(marks)
    assert {each.property: each.what for each in violations(end, None)} == expected
