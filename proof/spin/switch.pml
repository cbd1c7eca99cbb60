/* Copyright (c) 2026 the exfil.guard authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The switch from one generation to the next, its trial and its confirmation, while events are decided: generations.load,
 * generations.publish, apply._confirm, and peek_generation() in bpf/core/maps.h. The process that applies may die after each
 * step; the next run continues from the kernel's state. Each safeguard can be removed by a definition; then an assertion
 * has to fail.
 */
#define APPLIES 4
#define EVENTS 2
#define SLOTS 3
#define NONE SLOTS	/* no slot: nothing is enforced */
#define PART 255	/* a slot that is being filled */

/* the time until the record's deadline; a confirmation takes less than the margin */
#define EARLY 0
#define MARGIN 1
#define LATE 2

typedef record { byte generation; byte slot; byte fallback; byte fallback_slot; bool pending };
record now_;			/* the active record: replaced by one store */
byte phase = EARLY;
bool confirming = false;
byte content[SLOTS];		/* the generation whose tables a slot holds */
bool before[EVENTS];		/* started before the last switch and not finished */
bool inside[EVENTS];
bool guarded = false;		/* a generation was confirmed once */
byte abandoned[APPLIES + 1];	/* generations that an event has found reverted */

inline wait_for_readers() {
#ifndef NO_WAIT
	!before[0] && !before[1];
#endif
	skip
}

/* an event reads the record once; after the deadline it uses the fallback */
proctype event(byte me) {
	byte generation, slot;
	do
	:: atomic {
		inside[me] = true;
		generation = now_.generation;
		slot = now_.slot;
#ifndef NO_DEADLINE
		if
		:: now_.pending && phase == LATE ->
			abandoned[generation] = true;
			generation = now_.fallback;
			slot = now_.fallback_slot
		:: else
		fi;
#endif
		assert(!(now_.pending && phase == LATE && generation == now_.generation));	/* a generation that was not confirmed in time is reverted */
		assert(!abandoned[generation] || generation == 0);	/* a reverted generation does not come back */
		assert(!guarded || slot != NONE)			/* a policy is enforced at every moment */
	   }
	   if
	   :: slot != NONE ->
		assert(content[slot] == generation);	/* one table, */
		assert(content[slot] == generation)	/* then another, of the same generation */
	   :: else
	   fi;
	   atomic { generation = 0; slot = 0; inside[me] = false; before[me] = false }
	od
}

/* time passes while a generation is on trial */
active proctype clock() {
	do
#ifndef NO_CLOCK
	:: atomic { now_.pending && phase == EARLY -> phase = MARGIN }
	:: atomic { now_.pending && phase == MARGIN && !confirming -> phase = LATE }
#else
	:: false
#endif
	od
}

inline publish(g, s, f, fs, p) {
	d_step {
		now_.generation = g; now_.slot = s; now_.fallback = f; now_.fallback_slot = fs; now_.pending = p;
		phase = EARLY;
		before[0] = inside[0];
		before[1] = inside[1]
	}
	wait_for_readers()
}

active proctype apply() {
	byte next = 1, idle, last, last_slot;
	d_step { now_.slot = NONE; now_.fallback_slot = NONE }
	run event(0);
	run event(1);
	do
	:: next <= APPLIES ->
		/* the last confirmed generation remains the fallback */
		d_step {
			if
			:: now_.pending -> last = now_.fallback; last_slot = now_.fallback_slot
			:: else -> last = now_.generation; last_slot = now_.slot
			fi;
			idle = 0;
			do
#ifdef TWO_SLOTS
			:: idle == now_.slot -> idle++
#else
			:: idle == now_.slot || idle == now_.fallback_slot -> idle++
#endif
			:: else -> break
			od
		}
#ifdef IN_PLACE
		if
		:: now_.slot != NONE -> idle = now_.slot
		:: else
		fi;
#endif
		content[idle] = PART;
		if
		:: content[idle] = next
		:: next++; goto again	/* killed while it filled the slot */
		fi;
		publish(next, idle, last, last_slot, true);
		if
		:: skip			/* no confirmation */
#ifdef NO_MARGIN
		:: phase != LATE ->
#else
#ifdef CONFIRM_LATE
		:: phase == LATE ->	/* accepted although it is late */
#else
		:: atomic { phase == EARLY -> confirming = true }
#endif
#endif
		   publish(next, idle, last, last_slot, false);
		   atomic { confirming = false; guarded = true }
		:: phase != EARLY	/* refused */
		fi;
		next++;
again:		skip
	:: else -> break
	od
}

/* whichever process dies, the trial ends: confirmed or reverted */
ltl settled { []<> (!now_.pending || phase == LATE) }
