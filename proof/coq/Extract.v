(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** The meaning, the compiler and the look-up as an OCaml program, for proof/correspondence. What compile_correct asks for
    comes with them, so that each policy and event can be seen to be one that the theorem is about. *)

From Coq Require Import Extraction ExtrOcamlBasic ExtrOcamlNatInt.
From Guard Require Import Meaning Vectors Automaton Below Compile.

(* Booleans, options, pairs and lists become OCaml's own, which are the same types. Numbers (N: ids, bytes, vectors of
   bits, which are longer than a machine word) stay as Coq has them, in binary; nothing of them is replaced. Counters
   (nat) become machine integers of 63 bits, and truncated subtraction stays truncated. That changes nothing while none
   goes past 2^62, and these do not: they are lengths of lists and places in them, places of bits, numbers of states and
   rows, actions, widths of ranges of 16-bit ports, and the fuel, which the caller gives. None is ever multiplied but two
   constants. *)

Extraction "specification.ml" compile lookup decide valid possible_event reading gives label_names.
