(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** The meaning, the compiler and the lookup as an OCaml program, for proof/correspondence. The preconditions of
    compile_correct are extracted too, so that each policy and event can be checked against them. *)

From Coq Require Import Extraction ExtrOcamlBasic ExtrOcamlNatInt.
From Guard Require Import Meaning Vectors Automaton Below Compile.

(* Booleans, options, pairs and lists become OCaml's own, which are the same types. Numbers (N: ids, bytes, vectors of
   bits, which are longer than a machine word) remain Coq's binary numbers. Counters (nat) become machine integers of 63
   bits, and truncated subtraction remains truncated. The results are the same as long as no counter exceeds 2^62. None
   does: they are lengths of lists, places in lists and vectors, numbers of states and rows, actions, widths of ranges
   of 16-bit ports, and the fuel, which the caller chooses. Only two constants are multiplied. *)

Extraction "specification.ml" compile lookup decide valid possible_event reading gives label_names.
