/* Copyright (c) 2026 the exfil.guard authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A host boots with a policy with `boot: require`, perhaps after it stopped at any moment of an apply: boot.boot, and
 * exfil-guard-boot.service with its drop-in. Network and logins start after the unit, or not at all.
 */
mtype = { NOTHING, STARTING, ACTIVE, FAILED };

/* the documents on the disk: each is written atomically, and marked as confirmed after the kernel's record is */
bool confirmed = true;		/* generation 1 */
bool newer = false;		/* generation 2 exists and is on trial */
bool newer_confirmed = false;
mtype unit = NOTHING;
byte in_force = 0;
bool up = false;

active proctype machine() {
	/* an apply that may stop anywhere */
	if
	:: skip
	:: newer = true;
	   if
	   :: skip
	   :: newer_confirmed = true
	   fi
	fi;
	/* a reboot: the kernel's state is lost */
	in_force = 0;
	unit = STARTING;
	if
#ifdef LAST_WRITTEN
	:: newer -> in_force = 2; unit = ACTIVE
	:: !newer -> in_force = 1; unit = ACTIVE
#else
	:: newer_confirmed -> in_force = 2; unit = ACTIVE
	:: !newer_confirmed && confirmed -> in_force = 1; unit = ACTIVE
#endif
	:: unit = FAILED		/* for any reason */
	fi
}

active proctype others() {
	/* network and logins */
#ifdef NOT_ORDERED
	unit != NOTHING;
#else
#ifdef NOT_REQUIRED
	unit == ACTIVE || unit == FAILED;
#else
	unit == ACTIVE;
#endif
#endif
	up = true;
	assert(in_force != 0);				/* no task runs before a policy is in force */
	assert(in_force != 2 || newer_confirmed)	/* and that policy was confirmed */
}
