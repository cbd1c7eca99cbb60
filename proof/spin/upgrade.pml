/* Copyright (c) 2026 the exfil.guard authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * New programs replace old ones while events are decided: enforcer.ensure. Links cannot be updated in place, so that the
 * new programs are attached in addition to the old ones. The process may die after each step; the next run continues.
 */
#define HOOKS 2

bool old[HOOKS] = true, new[HOOKS] = false;
bool loaded = false;

active proctype event() {
	byte hook;
	do
	:: atomic {
		select(hook : 0 .. HOOKS - 1);
		assert(old[hook] || new[hook]);	/* the hook is enforced at every moment */
		hook = 0
	   }
	od
}

active proctype upgrade() {
	byte hook, deaths = 0;
again:
	do
	:: deaths < 3 -> deaths++; goto again	/* killed, and run again */
#ifndef OLD_FIRST
	:: !loaded -> loaded = true		/* all programs are loaded and verified, or none */
	:: loaded && old[0] && !new[0] -> new[0] = true
	:: loaded && old[1] && !new[1] -> new[1] = true
#ifdef ONE_BY_ONE_AT_RANDOM
	:: loaded && old[0] -> old[0] = false
	:: loaded && old[1] -> old[1] = false
#else
	:: loaded && new[0] && new[1] && old[0] -> old[0] = false
	:: loaded && new[0] && new[1] && old[1] -> old[1] = false
#endif
#else
	:: old[0] -> old[0] = false
	:: old[1] -> old[1] = false
	:: !loaded && !old[0] && !old[1] -> loaded = true
	:: loaded && !new[0] -> new[0] = true
	:: loaded && !new[1] -> new[1] = true
#endif
	:: new[0] && new[1] && !old[0] && !old[1] -> break
	od
}
