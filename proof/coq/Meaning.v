(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** What a policy means: plugins/module_utils/_guard/policy/model.py and semantics.py, function by function. *)

From Coq Require Import NArith List Bool.
Import ListNotations.
Open Scope N_scope.

(** * Policies *)

(** Names of rules and sets are numbers in the order of the names; actions and reasons are those of bpf/abi/layout.h. *)

Definition component := list N.  (* bytes *)
Definition star : N := 42.

Inductive segment := Any | Glob (text : component).  (* a [star] in the text: any run of bytes *)
Definition pattern := (list segment * bool)%type.  (* true: ** at the end *)
Record placed := Placed { on_device : N; shape : pattern }.

Record subject := Subject {
  users : option (list N);
  login_users : option (list N);
  groups : option (list N);
  services : option (list (list component));
  executables : option (list placed);
  has_read : option (list N) }.

Definition address := (bool * list bool)%type.  (* whether it is IPv6, and its bits *)

Record destination := Destination {
  cidrs : option (list address);
  ports : option (list (N * N));
  protocols : option (list N);
  vsock : option (list (option N * option N)) }.

Record selection := Selection { names : list N; negated : bool }.

Record rule := Rule {
  name : N;
  deny : list N;
  subjects : option (list N);
  excepts : list N;
  resources : option selection;
  destinations : option selection;
  audit : bool;
  expires : option N }.

Record policy := Policy {
  rules : list rule;
  subject_sets : list (N * subject);
  resource_sets : list (N * list placed);
  destination_sets : list (N * destination);
  superblocks : list N;
  protected : list placed }.

(** * Events *)

Record location := Location { device : N; path : list component; pseudo : bool; lost : option N }.

Record task := Task {
  ids : list N;
  group_ids : list N;
  memberships : list N;
  login : N;
  service : option (list component);
  executable : option location;
  labels : list N;
  ids_truncated : bool }.

Inductive event :=
| File (action : N) (at_ : location)
| Alias (source target : location) (directory : bool)
| Network (action : N) (to : address) (port protocol : N) (trouble : option N)
| Vsock (cid port : N)
| Plain (action : N)
| Tamper (root : bool) (at_ : option location) (below : bool).

Inductive outcome := Allow | Audit | Deny.
Record verdict := Verdict { result : outcome; by_rule : option N; reason : N }.

(* generated: actions *)
Definition WRITE := 1.
Definition VSOCK := 10.
Definition LINK := 14.
Definition RESOURCES := [0; 1; 2; 9].
Definition OWN := [6; 7; 8].
(* end of generated: actions *)
Definition BY_RULE := 0.
Definition TOO_DEEP := 2.
Definition UNKNOWN_FS := 3.
Definition TAMPERED := 8.
Definition ABSTRACT := 4294967295.

(** * Subjects *)

Definition mem (n : N) (l : list N) := existsb (N.eqb n) l.
Definition overlap (a b : list N) := existsb (fun n => mem n b) a.

(** A key that is absent holds for every task. *)
Definition key {A} (k : option A) (holds : A -> bool) := match k with None => true | Some a => holds a end.

Fixpoint glob (g : component) : component -> bool :=
  match g with
  | [] => fun c => match c with [] => true | _ :: _ => false end
  | b :: g' =>
      if b =? star
      then fix run c := glob g' c || match c with [] => false | _ :: c' => run c' end
      else fun c => match c with [] => false | x :: c' => (b =? x) && glob g' c' end
  end.

Definition segment_matches (s : segment) (c : component) := match s with Any => true | Glob g => glob g c end.

Fixpoint matches_from (head : list segment) (tree : bool) (p : list component) : bool :=
  match head, p with
  | [], [] => true
  | [], _ :: _ => tree
  | s :: head', c :: p' => segment_matches s c && matches_from head' tree p'
  | _ :: _, [] => false
  end.
Definition matches (g : pattern) (p : list component) := matches_from (fst g) (snd g) p.

Definition here (w : location) (g : placed) := on_device g =? device w.
Definition some_matches (gs : list placed) (w : location) :=
  existsb (fun g => here w g && matches (shape g) (path w)) gs.

Definition trouble_at (p : policy) (w : location) : option N :=
  match lost w with
  | Some r => Some r
  | None => if mem (device w) (superblocks p) || (device w =? ABSTRACT) || pseudo w then None else Some UNKNOWN_FS
  end.

Fixpoint below_service (unit_ cgroup : list component) : bool :=
  match unit_, cgroup with
  | [], _ => true
  | a :: unit', b :: cgroup' => (if list_eq_dec N.eq_dec a b then true else false) && below_service unit' cgroup'
  | _ :: _, [] => false
  end.
Definition in_service (us : list (list component)) (cgroup : list component) :=
  existsb (fun u => below_service u cgroup) us.

(** The executable's path, if it is known. *)
Definition known (p : policy) (t : task) : option location :=
  match executable t with
  | None => None
  | Some w => match trouble_at p w with None => Some w | Some _ => None end
  end.

(** Unknown attributes match a rule's subjects. *)
Definition may_be (p : policy) (t : task) (s : subject) : bool :=
  key (users s) (fun l => ids_truncated t || overlap l (ids t))
  && key (groups s) (fun l => ids_truncated t || overlap l (group_ids t))
  && key (login_users s) (mem (login t))
  && key (services s) (fun us => match service t with None => true | Some c => in_service us c end)
  && key (executables s) (fun gs => match known p t with None => true | Some w => some_matches gs w end)
  && key (has_read s) (fun l => overlap l (labels t)).

(** Unknown attributes do not match an exception. *)
Definition surely_is (p : policy) (t : task) (s : subject) : bool :=
  key (users s) (fun l => negb (ids_truncated t) && forallb (fun n => mem n l) (ids t))
  && key (groups s) (fun l => negb (ids_truncated t) && overlap l (memberships t))
  && key (login_users s) (mem (login t))
  && key (services s) (fun us => match service t with None => false | Some c => in_service us c end)
  && key (executables s) (fun gs => match known p t with None => false | Some w => some_matches gs w end)
  && key (has_read s) (fun l => overlap l (labels t)).

(** Some set with one of these names satisfies the test. *)
Definition some_named {S} (sets : list (N * S)) (ns : list N) (holds : S -> bool) : bool :=
  existsb (fun s => mem (fst s) ns && holds (snd s)) sets.

Definition binds (p : policy) (t : task) (r : rule) : bool :=
  match subjects r with None => true | Some ns => some_named (subject_sets p) ns (may_be p t) end.
Definition excepted (p : policy) (t : task) (r : rule) : bool :=
  some_named (subject_sets p) (excepts r) (surely_is p t).

Definition in_force (today : N) (r : rule) := match expires r with None => true | Some day => today <? day end.

(** * Resources *)

Definition selected {S} (sets : list (N * S)) (sel : option selection) (holds : S -> bool) : bool :=
  match sel with None => false | Some s => xorb (some_named sets (names s) holds) (negated s) end.

Definition covers_file (p : policy) (w : location) (r : rule) : bool :=
  selected (resource_sets p) (resources r) (fun gs => some_matches gs w).

Fixpoint begins (head : list segment) (tree : bool) (p : list component) : bool :=
  match head, p with
  | _, [] => true
  | [], _ :: _ => tree
  | s :: head', c :: p' => segment_matches s c && begins head' tree p'
  end.
Definition some_below (gs : list pattern) (p : list component) := existsb (fun g => begins (fst g) (snd g) p) gs.

(** A name that no literal and no glob matches represents all other names. *)
Definition nobody : component := [47].
Definition depth (g : pattern) : nat := length (fst g) + (if snd g then 1 else 0).
Definition all_below (gs : list pattern) (p : list component) : bool :=
  forallb (fun below => existsb (fun g => matches g (p ++ repeat nobody below)) gs)
          (seq 0 (list_max (map depth gs) - length p + 2)).

Definition shapes (p : policy) (s : selection) (w : location) : list pattern :=
  map shape (filter (here w) (flat_map snd (filter (fun set => mem (fst set) (names s)) (resource_sets p)))).

Definition reaches (p : policy) (w : location) (r : rule) : bool :=
  match resources r with
  | None => false
  | Some s => if negated s then negb (all_below (shapes p s w) (path w)) else some_below (shapes p s w) (path w)
  end.
Definition pervades (p : policy) (w : location) (r : rule) : bool :=
  match resources r with
  | None => false
  | Some s => if negated s then negb (some_below (shapes p s w) (path w)) else all_below (shapes p s w) (path w)
  end.

Definition covers_alias (p : policy) (source target : location) (directory : bool) (r : rule) : bool :=
  let some := if directory then reaches p else covers_file p in
  let every := if directory then pervades p else covers_file p in
  (some source r && negb (every target r)) || (mem WRITE (deny r) && some target r && negb (every source r)).

(** * Destinations *)

(** An IPv4-mapped IPv6 address counts as IPv4. *)
Definition unmapped (a : address) : address :=
  if fst a && forallb negb (firstn 80 (snd a)) && forallb id (firstn 16 (skipn 80 (snd a)))
     && Nat.eqb (length (snd a)) 128
  then (false, skipn 96 (snd a)) else a.

Fixpoint is_prefix {A} (same : A -> A -> bool) (prefix l : list A) : bool :=
  match prefix, l with
  | [], _ => true
  | a :: prefix', b :: l' => same a b && is_prefix same prefix' l'
  | _ :: _, [] => false
  end.

Definition in_cidr (a c : address) := Bool.eqb (fst a) (fst c) && is_prefix Bool.eqb (snd c) (snd a).
Definition whole (six : bool) (cs : list address) :=
  existsb (fun c => Bool.eqb six (fst c) && match snd c with [] => true | _ :: _ => false end) cs.

Definition everywhere (action : N) (a : address) : bool := mem action OWN && forallb negb (snd a).

(** [negated_]: under `not`. [a] is unmapped. *)
Definition holds_address (action : N) (a : address) (negated_ : bool) (cs : list address) : bool :=
  if everywhere action a
  then negb negated_ || (whole false cs && (negb (fst a) || whole true cs))
  else existsb (in_cidr a) cs.

Definition is_at (action : N) (a : address) (port protocol : N) (negated_ : bool) (d : destination) : bool :=
  match vsock d with None => true | Some _ => false end
  && key (cidrs d) (holds_address action a negated_)
  && key (ports d) (existsb (fun range => (fst range <=? port) && (port <=? snd range)))
  && key (protocols d) (mem protocol).

Definition covers_endpoint (p : policy) (action : N) (to : address) (port protocol : N) (r : rule) : bool :=
  selected (destination_sets p) (destinations r)
           (is_at action (unmapped to) port protocol match destinations r with None => false | Some s => negated s end).

Definition perhaps (o : option N) (n : N) := match o with None => true | Some m => m =? n end.
Definition at_vsock (cid port : N) (d : destination) : bool :=
  match vsock d with
  | None => false
  | Some es => existsb (fun e => perhaps (fst e) cid && perhaps (snd e) port) es
  end.
Definition covers_vsock (p : policy) (cid port : N) (r : rule) : bool :=
  selected (destination_sets p) (destinations r) (at_vsock cid port).

(** * The verdict *)

Definition or_else {A} (a b : option A) := match a with Some _ => a | None => b end.

Definition trouble_of (p : policy) (e : event) : option N :=
  match e with
  | File _ w => trouble_at p w
  | Alias source target _ => or_else (trouble_at p source) (trouble_at p target)
  | Network _ _ _ _ trouble => trouble
  | _ => None
  end.

Definition tries (e : event) (r : rule) : bool :=
  match e with
  | File action _ | Network action _ _ _ _ | Plain action => mem action (deny r)
  | Alias _ _ _ => overlap (deny r) RESOURCES
  | Vsock _ _ => mem VSOCK (deny r)
  | Tamper _ _ _ => false
  end.

Definition covers (p : policy) (e : event) (r : rule) : bool :=
  match e with
  | File _ w => covers_file p w r
  | Alias source target directory => covers_alias p source target directory r
  | Network action to port protocol _ => covers_endpoint p action to port protocol r
  | Vsock cid port => covers_vsock p cid port r
  | Plain _ => true
  | Tamper _ _ _ => false
  end.

Definition hit (p : policy) (today : N) (t : task) (e : event) (r : rule) : bool :=
  in_force today r && tries e r && (binds p t r && negb (excepted p t r))
  && match trouble_of p e with Some _ => true | None => covers p e r end.

(** The first rule by name. *)
Fixpoint first (rs : list rule) : option N :=
  match rs with
  | [] => None
  | r :: rs' => match first rs' with None => Some (name r) | Some n => Some (N.min (name r) n) end
  end.

Definition enforcing (rs : list rule) := filter (fun r => negb (audit r)) rs.

(** Built in: modifying the enforcer. *)
Definition is_protected (p : policy) (w : location) (below : bool) : bool :=
  match trouble_at p w with
  | Some r => negb ((r =? UNKNOWN_FS) || (r =? TOO_DEEP))
  | None =>
      let gs := map shape (filter (here w) (protected p)) in
      if below then some_below gs (path w) else existsb (fun g => matches g (path w)) gs
  end.

Definition named_hit (p : policy) (today : N) (t : task) (r : rule) : bool :=
  in_force today r && match subjects r with None => false | Some _ => true end && (binds p t r && negb (excepted p t r)).

Definition allowed : verdict := Verdict Allow None BY_RULE.

(** Whether a rule on labels is not in audit mode. Otherwise no label denies anything by itself. *)
Definition asks_for_labels (p : policy) (r : rule) : bool :=
  match subjects r with
  | None => false
  | Some ns => some_named (subject_sets p) ns (fun s => match has_read s with None => false | Some _ => true end)
  end.
Definition labels_deny (p : policy) (today : N) : bool :=
  existsb (fun r => in_force today r && negb (audit r) && asks_for_labels p r) (rules p).

Definition stricter (a b : outcome) : outcome :=
  match a, b with Deny, _ | _, Deny => Deny | Audit, _ | _, Audit => Audit | Allow, Allow => Allow end.
Definition said_of_root (root : bool) : outcome := if root then Allow else Deny.
Definition said_by_label (denies : bool) (t : task) : outcome :=
  match labels t with [] => Allow | _ :: _ => if denies then Deny else Audit end.

Definition touched (o : outcome) (rule_ : option N) : verdict :=
  match o with Allow => allowed | _ => Verdict o rule_ TAMPERED end.

(** The strictest verdict holds. *)
Definition tampering (p : policy) (today : N) (t : task) (root : bool) (at_ : option location) (below : bool) : verdict :=
  if match at_ with None => true | Some w => is_protected p w below end
  then
    let binding := filter (named_hit p today t) (rules p) in
    let (by_rules, rule_) :=
      match first (enforcing binding), first binding with
      | Some n, _ => (Deny, Some n)
      | None, Some n => (Audit, Some n)
      | None, None => (Allow, None)
      end in
    touched (stricter (stricter (said_of_root root) (said_by_label (labels_deny p today) t)) by_rules) rule_
  else allowed.

Definition decide (p : policy) (today : N) (t : task) (e : event) : verdict :=
  match e with
  | Tamper root at_ below => tampering p today t root at_ below
  | _ =>
      let hits := filter (hit p today t e) (rules p) in
      let why := match trouble_of p e with Some r => r | None => BY_RULE end in
      match first (enforcing hits), first hits with
      | Some n, _ => Verdict Deny (Some n) why
      | None, Some n => Verdict Audit (Some n) why
      | None, None => allowed
      end
  end.

(** The labels that a reader gets: of the sets that any `has_read` names, those that contain the object. *)
Definition label_names (p : policy) : list N :=
  flat_map (fun s => match has_read (snd s) with None => [] | Some l => l end) (subject_sets p).
Definition gives (p : policy) (w : location) (label : N) : bool :=
  mem label (label_names p)
  && match trouble_at p w with
     | Some _ => true
     | None => existsb (fun s => (fst s =? label) && some_matches (snd s) w) (resource_sets p)
     end.
