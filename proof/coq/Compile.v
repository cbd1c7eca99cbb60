(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** How a policy is compiled to tables (plugins/module_utils/_guard/compile/tables.py), and how a verdict is looked up in
    them (bpf/core/decide.h and the hooks, as in tests/property/kernel_model.py). *)

From Coq Require Import NArith List Bool Arith.
From Guard Require Import Meaning Vectors Automaton Below.
Import ListNotations.
Open Scope N_scope.

Definition ALL := N.ones 64.
Definition SETS := 64%nat.
Definition PROTECTED := 575%nat.
Definition USER := 0. Definition LOGIN := 1. Definition GROUP := 2. Definition PROTOCOL := 3. Definition LABEL := 4.

Definition given {A} (o : option (list A)) : list A := match o with None => [] | Some l => l end.
Definition absent {A} (o : option A) : bool := match o with None => true | Some _ => false end.

(** The table "states" by its columns; the other tables by their rows. *)
Record image := Image {
  t_rules : list N;  (* names, by bit *)
  always : N; of_action : list N; audits : N; not_destinations : N; named : N;
  any_user : N; any_login : N; any_group : N; any_service : N; any_executable : N; any_label : N;
  any_address : N; any_port : N; any_protocol : N;
  service_root : nat;
  denies_labels : bool;  (* GUARD_DENIES_LABELS *)
  t_labels : list (N * nat);  (* name, bit *)
  t_subjects : list (N * N);  (* binds, exempts *)
  t_destinations : list (N * N);  (* covers, negated match *)
  t_ids : list ((N * N) * N);
  t_ipv4 : list (list bool * N); t_ipv6 : list (list bool * N); t_ports : list (list bool * N);
  t_vsock : list (list N * N);
  t_superblocks : list (N * nat);
  t_nodes : list (node nat);
  c_services : list N; c_executables : list N; c_labels : list N;
  c_covers : list N; c_reaches : list N; c_pervades : list N }.

(** * Rules by name *)

Fixpoint insert (r : rule) (l : list rule) : list rule :=
  match l with [] => [r] | x :: l' => if name r <=? name x then r :: l else x :: insert r l' end.
Definition sort (l : list rule) : list rule := fold_right insert [] l.

(** * Paths: _automaton_tables *)

Definition on (d : N) (gs : list placed) : list pattern := map shape (filter (fun g => on_device g =? d) gs).
Definition devices (p : policy) : list N := nodup N.eq_dec (ABSTRACT :: superblocks p ++ map on_device (protected p)).

(** The bits of a mark: subject sets by executable, by service, resource sets, the enforcer's files. *)
Definition root_entries (p : policy) (d : N) : items :=
  keyed_from (2 * SETS) (fun s => on d (snd s)) (resource_sets p)
  ++ map (fun g => (g, bit (2 * SETS + length (resource_sets p)))) (on d (protected p))
  ++ keyed_from 0 (fun s => on d (given (executables (snd s)))) (subject_sets p).
Definition tree_below (u : list component) : pattern := (map Glob u, true).
Definition service_entries (p : policy) : items :=
  keyed_from SETS (fun s => map tree_below (given (services (snd s)))) (subject_sets p).
Definition roots (p : policy) : list items :=
  map (fun d => table pattern_dec (root_entries p d)) (devices p) ++ [table pattern_dec (service_entries p)].

Definition names_resource (negated_ : bool) (n : N) (r : rule) : bool :=
  match resources r with None => false | Some s => Bool.eqb (negated s) negated_ && mem n (names s) end.
Definition names_destination (negated_ : bool) (n : N) (r : rule) : bool :=
  match destinations r with None => false | Some s => Bool.eqb (negated s) negated_ && mem n (names s) end.

Definition covering (p : policy) (rs : list rule) (marks_ : N) : N :=
  let found := N.shiftr marks_ (N.of_nat (2 * SETS)) in
  let plainly := select found (map (fun s => vector (names_resource false (fst s)) rs) (resource_sets p)) in
  let spared := select found (map (fun s => vector (names_resource true (fst s)) rs) (resource_sets p)) in
  let everything := vector (fun r => match resources r with None => false | Some s => negated s end) rs in
  N.lor (N.lor plainly (N.ldiff everything spared))
        (if found.[length (resource_sets p)] then bit PROTECTED else 0).

Definition bit_of (bits : list (N * nat)) (label : N) : nat :=
  match find (fun e => fst e =? label) bits with Some e => snd e | None => O end.

Definition label_marks (p : policy) (bits : list (N * nat)) (marks_ : N) : N :=
  let found := N.shiftr marks_ (N.of_nat (2 * SETS)) in
  select found (map (fun s => if mem (fst s) (map fst bits) then bit (bit_of bits (fst s)) else 0) (resource_sets p)).

(** * Numbers: _number_tables *)

Definition pair_dec : forall a b : N * N, {a = b} + {a <> b}.
Proof. decide equality; apply N.eq_dec. Defined.

Definition subject_ids (bits : list (N * nat)) (s : N * subject) : list (N * N) :=
  map (pair USER) (given (users (snd s))) ++ map (pair LOGIN) (given (login_users (snd s)))
  ++ map (pair GROUP) (given (groups (snd s)))
  ++ map (fun l => (LABEL, N.of_nat (bit_of bits l))) (given (has_read (snd s))).
Definition destination_ids (d : N * destination) : list (N * N) := map (pair PROTOCOL) (given (protocols (snd d))).

Definition networks (six : bool) (d : N * destination) : list (list bool) :=
  map snd (filter (fun c => Bool.eqb (fst c) six) (given (cidrs (snd d)))).

(** Big endian. *)
Definition port_bits (port : N) : list bool := map (fun i => N.testbit port (N.of_nat (15 - i))) (seq 0 16).
(** The largest aligned block that begins at [first] and does not exceed [last], as its number of free bits. *)
Fixpoint block (k : nat) (first last : N) : nat :=
  match k with
  | O => O
  | S k' => if (first mod 2 ^ N.of_nat k =? 0) && (first + 2 ^ N.of_nat k - 1 <=? last) then k else block k' first last
  end.
Fixpoint port_prefixes (fuel : nat) (first last : N) : list (list bool) :=
  match fuel with
  | O => []
  | S fuel' =>
      if last <? first then []
      else let k := block 16 first last in
           firstn (16 - k) (port_bits first) :: port_prefixes fuel' (first + 2 ^ N.of_nat k) last
  end.
Definition port_ranges (d : N * destination) : list (list bool) :=
  flat_map (fun range => port_prefixes (N.to_nat (snd range + 1 - fst range)) (fst range) (snd range)) (given (ports (snd d))).

Definition endpoint_key (e : option N * option N) : list N :=
  match e with (None, _) => [] | (Some c, None) => [c] | (Some c, Some q) => [c; q] end.
Definition endpoints (d : N * destination) : list (list N) := map endpoint_key (given (vsock (snd d))).

Definition trie {A} (same : forall a b : A, {a = b} + {a <> b}) (keys : N * destination -> list (list A)) (p : policy) :=
  closed same (table (same_list same) (keyed_from 0 keys (destination_sets p))).

(** * The image *)

Definition PLAIN := 13%nat. Definition RENAME := 15%nat.
Definition actions_table (rs : list rule) : list N :=
  let of a := vector (fun r => mem a (deny r)) rs in
  map (fun i => if Nat.eqb i (N.to_nat LINK) || Nat.eqb i RENAME then union (map of RESOURCES)
                else if Nat.eqb i PLAIN then union (map (fun a => of (N.of_nat a)) (seq 16 112))
                else of (N.of_nat i)) (seq 0 128).

Definition in_order (p : policy) (today : N) : list rule := sort (filter (in_force today) (rules p)).

Definition image_of (bits : list (N * nat)) (p : policy) (today : N) (t : list (node nat)) (ns : list nat)
                    (reaches_ pervades_ : list N) : image :=
  let rs := in_order p today in
  let without {A} (k : subject -> option A) := vector (fun s => absent (k (snd s))) (subject_sets p) in
  let anywhere {A} (k : destination -> option A) :=
    vector (fun d => absent (vsock (snd d)) && absent (k (snd d))) (destination_sets p) in
  Image
    (map name rs)
    (vector (fun r => absent (subjects r)) rs)
    (actions_table rs)
    (vector audit rs)
    (vector (fun r => match destinations r with None => false | Some s => negated s end) rs)
    (vector (fun r => negb (absent (subjects r))) rs)
    (without users) (without login_users) (without groups) (without services) (without executables) (without has_read)
    (anywhere cidrs) (anywhere ports) (anywhere protocols)
    (last ns O)
    (existsb (fun r => negb (audit r)
                       && existsb (fun s => match subjects r with None => false | Some l => mem (fst s) l end
                                            && negb (absent (has_read (snd s)))) (subject_sets p)) rs)
    bits
    (map (fun s => (vector (fun r => match subjects r with None => false | Some l => mem (fst s) l end) rs,
                    vector (fun r => mem (fst s) (excepts r)) rs)) (subject_sets p))
    (map (fun d => (vector (names_destination false (fst d)) rs, vector (names_destination true (fst d)) rs))
         (destination_sets p))
    (table pair_dec (keyed_from 0 (subject_ids bits) (subject_sets p)
                     ++ keyed_from 0 destination_ids (destination_sets p)))
    (trie bool_dec (networks false) p) (trie bool_dec (networks true) p) (trie bool_dec port_ranges p)
    (trie N.eq_dec endpoints p)
    (combine (devices p) ns)
    t
    (map (fun n => N.land (N.shiftr (marks n) (N.of_nat SETS)) ALL) t)
    (map (fun n => N.land (marks n) ALL) t)
    (map (fun n => label_marks p bits (marks n)) t)
    (map (fun n => covering p rs (marks n)) t) reaches_ pervades_.

(** [None]: the patterns need more states than [fuel]. *)
Definition compile (fuel : nat) (bits : list (N * nat)) (p : policy) (today : N) : option image :=
  match build fuel (roots p) with
  | None => None
  | Some (t, ns) =>
      let covers_ := map (fun n => covering p (in_order p today) (marks n)) t in
      match settle t N.lor fuel covers_, settle t N.land fuel covers_ with
      | Some reaches_, Some pervades_ => Some (image_of bits p today t ns reaches_ pervades_)
      | _, _ => None
      end
  end.

(** * Lookup *)

Section Lookup.
  Variable im : image.

  Definition place (w : location) : nat * option N :=
    match lost w with
    | Some r => (O, Some r)
    | None =>
        match find (fun e => fst e =? device w) (t_superblocks im) with
        | None => (O, if pseudo w then None else Some UNKNOWN_FS)
        | Some e => (walk (t_nodes im) (snd e) (path w), None)
        end
    end.

  Definition id_sets (kind n : N) : N := mask pair_dec (kind, n) (t_ids im).

  Definition in_services (t : task) : option N :=
    match service t with None => None | Some c => Some (nth (walk (t_nodes im) (service_root im) c) (c_services im) 0) end.
  Definition in_executables (t : task) : option N :=
    match executable t with
    | None => None
    | Some w => match place w with (n, None) => Some (nth n (c_executables im) 0) | (_, Some _) => None end
    end.
  Definition carried (t : task) : N :=
    union (map (fun e => if mem (fst e) (labels t) then id_sets LABEL (N.of_nat (snd e)) else 0) (t_labels im)).
  Definition unless_none (o : option N) (otherwise_ : N) := match o with None => otherwise_ | Some m => m end.

  (** guard_binding_sets and guard_exempting_sets *)
  Definition binding_sets (t : task) : N :=
    common ALL [
      N.lor (any_user im) (N.lor (union (map (id_sets USER) (ids t))) (if ids_truncated t then ALL else 0));
      N.lor (any_login im) (id_sets LOGIN (login t));
      N.lor (any_group im) (if ids_truncated t then ALL else union (map (id_sets GROUP) (group_ids t)));
      N.lor (any_service im) (unless_none (in_services t) ALL);
      N.lor (any_executable im) (unless_none (in_executables t) ALL);
      N.lor (any_label im) (carried t)].
  Definition exempting_sets (t : task) : N :=
    common ALL [
      N.lor (any_user im) (if ids_truncated t then 0 else common ALL (map (id_sets USER) (ids t)));
      N.lor (any_login im) (id_sets LOGIN (login t));
      N.lor (any_group im) (if ids_truncated t then 0 else union (map (id_sets GROUP) (memberships t)));
      N.lor (any_service im) (unless_none (in_services t) 0);
      N.lor (any_executable im) (unless_none (in_executables t) 0);
      N.lor (any_label im) (carried t)].

  Definition bound (t : task) : N :=
    N.ldiff (N.lor (always im) (select (binding_sets t) (map fst (t_subjects im))))
            (select (exempting_sets t) (map snd (t_subjects im))).

  (** guard_destination_sets, and the rules that cover an endpoint *)
  Definition destination_sets_at (address_ port protocol : N) : N :=
    common ALL [N.lor (any_address im) address_; N.lor (any_port im) port; N.lor (any_protocol im) protocol].
  Definition covering_rules (plain spared : N) : N :=
    N.lor (select plain (map fst (t_destinations im)))
          (N.ldiff (not_destinations im) (select spared (map snd (t_destinations im)))).
  Definition reach_endpoint (action : N) (to : address) (port protocol : N) : N :=
    let a := unmapped to in
    let q := longest bool_dec 16 (port_bits port) (t_ports im) in
    let r := id_sets PROTOCOL protocol in
    let (plain, spared) :=
      if everywhere action a
      then (ALL, let four := longest bool_dec 0 [] (t_ipv4 im) in
                 if fst a then N.land four (longest bool_dec 0 [] (t_ipv6 im)) else four)
      else let m := longest bool_dec (length (snd a)) (snd a) (if fst a then t_ipv6 im else t_ipv4 im) in (m, m) in
    covering_rules (destination_sets_at plain q r) (destination_sets_at spared q r).
  Definition reach_vsock (cid port : N) : N :=
    let sets := longest N.eq_dec 2 [cid; port] (t_vsock im) in covering_rules sets sets.

  (** guard_moved *)
  Definition moved (some_old all_old some_new all_new writing : N) : N :=
    N.lor (N.ldiff some_old all_new) (N.land (N.ldiff some_new all_old) writing).

  (** guard_decide: [covers_] is None for an object without a state *)
  Definition judge (bound_ : N) (covers_ : option N) (of_action_ : N) : outcome * option nat :=
    let bits := N.land bound_ of_action_ in
    let hits := match covers_ with None => bits | Some c => N.land bits c end in
    match lowest (N.ldiff hits (audits im)) with
    | Some n => (Deny, Some n)
    | None => match lowest hits with Some n => (Audit, Some n) | None => (Allow, None) end
    end.

  Definition rule_name (n : option nat) : option N := match n with None => None | Some i => nth_error (t_rules im) i end.
  Definition action_rules (a : N) : N := nth (N.to_nat a) (of_action im) 0.

  Definition verdict_by (bound_ : N) (covers_ : option N) (of_action_ : N) (why : option N) : verdict :=
    match judge bound_ covers_ of_action_ with
    | (Allow, _) => allowed
    | (o, n) => Verdict o (rule_name n) (match why with Some r => r | None => BY_RULE end)
    end.

  Definition verdict_unless (bound_ covers_ of_action_ : N) (why : option N) : verdict :=
    verdict_by bound_ (match why with Some _ => None | None => Some covers_ end) of_action_ why.

  (** bpf/decision/protection.h *)
  Definition touches (at_ : option location) (below : bool) : bool :=
    match at_ with
    | None => true
    | Some w => match place w with
                | (_, Some r) => negb ((r =? UNKNOWN_FS) || (r =? TOO_DEEP))
                | (n, None) => (nth n (if below then c_reaches im else c_covers im) 0).[PROTECTED]
                end
    end.
  Definition lookup_tampering (t : task) (root : bool) (at_ : option location) (below : bool) : verdict :=
    if touches at_ below
    then let (by_rules, n) := judge (bound t) None (named im) in
         touched (stricter (stricter (said_of_root root) (said_by_label (denies_labels im) t)) by_rules) (rule_name n)
    else allowed.

  Definition lookup (t : task) (e : event) : verdict :=
    match e with
    | Plain action => verdict_by (bound t) None (action_rules action) None
    | Network action to port protocol trouble =>
        verdict_unless (bound t) (reach_endpoint action to port protocol) (action_rules action) trouble
    | Vsock cid port => verdict_unless (bound t) (reach_vsock cid port) (action_rules VSOCK) None
    | File action w =>
        let (n, trouble) := place w in verdict_unless (bound t) (nth n (c_covers im) 0) (action_rules action) trouble
    | Alias source target_ directory =>
        let (old, trouble_old) := place source in
        let (new, trouble_new) := place target_ in
        let some := if directory then c_reaches im else c_covers im in
        let every := if directory then c_pervades im else c_covers im in
        verdict_unless (bound t)
          (moved (nth old some 0) (nth old every 0) (nth new some 0) (nth new every 0) (action_rules WRITE))
          (action_rules LINK) (or_else trouble_old trouble_new)
    | Tamper root at_ below => lookup_tampering t root at_ below
    end.

  (** bpf/label/flow.h: the labels that a reader of the object gets *)
  Definition reading (labels_ : N) (w : location) : N :=
    match place w with (_, Some _) => labels_ | (n, None) => N.land labels_ (nth n (c_labels im) 0) end.
End Lookup.

(** * Preconditions: what the resolver guarantees, and which events the kernel can produce *)

Definition known_device (p : policy) (g : placed) : bool := mem (on_device g) (superblocks p) || (on_device g =? ABSTRACT).
Definition vsock_alone (d : destination) : bool :=
  match vsock d with
  | None => true
  | Some es => absent (cidrs d) && absent (ports d) && absent (protocols d)
               && forallb (fun e => match e with (None, Some _) => false | _ => true end) es
  end.

Fixpoint distinct (l : list nat) : bool :=
  match l with [] => true | n :: l' => negb (existsb (Nat.eqb n) l') && distinct l' end.

Definition valid (bits : list (N * nat)) (p : policy) : bool :=
  Nat.leb (length (subject_sets p)) 64 && Nat.leb (length (destination_sets p)) 64 && Nat.leb (length (rules p)) 512
  && plain_policy p
  && forallb (fun s => forallb (known_device p) (snd s)) (resource_sets p)
  && forallb (known_device p) (protected p)
  && forallb (fun s => forallb (known_device p) (given (executables (snd s)))) (subject_sets p)
  && forallb (fun d => vsock_alone (snd d) && forallb (fun range => snd range <? 65536) (given (ports (snd d))))
             (destination_sets p)
  && distinct (map snd bits)
  && forallb (fun l => mem l (map fst bits)) (label_names p).

Definition possible_action (a : N) : bool := (a <? 128) && negb (mem a [13; 14; 15]).
Definition possible_event (e : event) : bool :=
  match e with
  | File a _ | Plain a => possible_action a
  | Network a _ port _ _ => possible_action a && (port <? 65536)
  | _ => true
  end.
