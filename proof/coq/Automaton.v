(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** Path patterns as a deterministic automaton over components; and, where a component contains a star or a long
    literal, an automaton over its bytes: plugins/module_utils/_guard/compile/automaton.py. *)

From Coq Require Import NArith List Bool Lia Arith.
From Guard Require Import Meaning Vectors.
Import ListNotations.
Open Scope N_scope.

Lemma some_inj : forall (A : Type) (a b : A), Some a = Some b -> a = b.
Proof. intros A a b H. injection H. auto. Qed.

(** * All reachable states: _Builder.run, and the rows of _byte_rows *)

Section Explore.
  Context {S : Type} (same : forall a b : S, {a = b} + {a <> b}) (succ : S -> option (list S)).

  Fixpoint explore (fuel : nat) (seen pending : list S) : option (list S) :=
    match pending with
    | [] => Some seen
    | s :: pending' =>
        match fuel, succ s with
        | Datatypes.S fuel', Some l =>
            let new := filter (fun x => if in_dec same x seen then false else true) (nodup same l) in
            explore fuel' (seen ++ new) (pending' ++ new)
        | _, _ => None
        end
    end.

  Lemma explore_closed : forall fuel seen pending all, explore fuel seen pending = Some all ->
    (forall s, In s seen -> In s pending \/ exists l, succ s = Some l /\ incl l seen) ->
    (exists more, all = seen ++ more) /\ forall s, In s all -> exists l, succ s = Some l /\ incl l all.
  Proof.
    induction fuel as [|fuel IH]; intros seen [|s pending] all E Inv; cbn [explore] in E.
    - injection E as <-. split; [exists []; symmetry; apply app_nil_r|]. intros s Hs. destruct (Inv s Hs) as [[]|H]; exact H.
    - discriminate.
    - injection E as <-. split; [exists []; symmetry; apply app_nil_r|]. intros s Hs. destruct (Inv s Hs) as [[]|H]; exact H.
    - destruct (succ s) as [l|] eqn:El; [|discriminate].
      set (new := filter _ (nodup same l)) in E.
      assert (Hnew : incl l (seen ++ new)).
      { intros x Hx. apply in_app_iff. destruct (in_dec same x seen) as [H|H]; [auto|]. right. apply filter_In.
        rewrite nodup_In. destruct (in_dec same x seen); [contradiction | auto]. }
      destruct (IH _ _ _ E) as [(more & Hmore) Hall].
      + intros x Hx. apply in_app_iff in Hx as [Hx|Hx]; [|left; apply in_app_iff; auto].
        destruct (Inv x Hx) as [[<-|H] | (l' & Hl & Hi)].
        * right. exists l. auto.
        * left. apply in_app_iff. auto.
        * right. exists l'. split; [exact Hl|]. intros y Hy. apply in_app_iff. auto.
      + split; [|exact Hall]. exists (new ++ more). rewrite app_assoc. exact Hmore.
  Qed.

  Lemma explore_all : forall (good : S -> Prop), (forall s l, good s -> succ s = Some l -> Forall good l) ->
    forall fuel seen pending all, explore fuel seen pending = Some all -> Forall good seen -> incl pending seen ->
    Forall good all.
  Proof.
    intros good Step. induction fuel as [|fuel IH]; intros seen [|s pending] all E Hs Hp; cbn [explore] in E.
    1, 3: injection E as <-; exact Hs.
    - discriminate.
    - destruct (succ s) as [l|] eqn:El; [|discriminate].
      set (new := filter _ (nodup same l)) in E.
      assert (Hn : Forall good new).
      { apply Forall_forall. intros x Hx. apply filter_In in Hx as [Hx _]. rewrite nodup_In in Hx.
        revert x Hx. apply Forall_forall. apply (Step s); [|exact El].
        revert s El Hp. rewrite Forall_forall in Hs. intros s El Hp. apply Hs, Hp. left. reflexivity. }
      apply (IH _ _ _ E).
      + apply Forall_app. auto.
      + intros x Hx. apply in_app_iff in Hx as [Hx|Hx]; apply in_app_iff; [left; apply Hp; right; exact Hx | right; exact Hx].
  Qed.

  Fixpoint index (s : S) (l : list S) : nat :=
    match l with [] => O | x :: l' => if same s x then O else Datatypes.S (index s l') end.

  Lemma index_nth : forall s l, In s l -> nth_error l (index s l) = Some s.
  Proof.
    induction l as [|x l IH]; intros H; [destruct H|]. cbn [index]. destruct (same s x) as [->|Hne]; [reflexivity|].
    apply IH. destruct H as [->|H]; [congruence | exact H].
  Qed.
End Explore.

(** * Bytes: the possible positions of a component in the heads *)

Definition position := (component * component)%type.  (* a head, and the rest of it *)
Definition component_dec := list_eq_dec N.eq_dec.
Definition position_dec : forall a b : position, {a = b} + {a <> b}.
Proof. decide equality; apply component_dec. Defined.

Fixpoint closure_of (h tail : component) : list position :=
  (h, tail) :: match tail with b :: tail' => if b =? star then closure_of h tail' else [] | [] => [] end.
Definition closure (ps : list position) : list position :=
  nodup position_dec (flat_map (fun p => closure_of (fst p) (snd p)) ps).

Definition starred (p : position) := match snd p with b :: _ => b =? star | [] => false end.
Definition after_byte (b : N) (p : position) : list position :=
  match snd p with
  | [] => []
  | c :: tail => if c =? star then [p] else if c =? b then [(fst p, tail)] else []
  end.
Definition step_byte (ps : list position) (b : N) := closure (flat_map (after_byte b) ps).

(** The bytes that some position expects; after any other byte only positions at a star continue. *)
Definition awaited (ps : list position) : list N :=
  nodup N.eq_dec (flat_map (fun p => match snd p with c :: _ => if c =? star then [] else [c] | [] => [] end) ps).
Definition step_other (ps : list position) := closure (filter starred ps).

Lemma step_other_byte : forall ps b, ~ In b (awaited ps) -> step_byte ps b = step_other ps.
Proof.
  intros ps b H. unfold step_byte, step_other. f_equal. unfold awaited in H. rewrite nodup_In in H.
  induction ps as [|[h [|c tail]] ps IH]; cbn [flat_map filter] in *; [reflexivity | apply IH; exact H |].
  unfold after_byte, starred at 1. cbn [snd fst] in *. destruct (c =? star).
  - cbn. f_equal. apply IH. exact H.
  - cbn [app In] in *. destruct (N.eqb_spec c b) as [->|]; [tauto | apply IH; tauto].
Qed.

Lemma glob_star : forall g c, glob (star :: g) c = glob g c || match c with [] => false | _ :: c' => glob (star :: g) c' end.
Proof. intros g []; reflexivity. Qed.
Lemma glob_byte : forall b g c, (b =? star) = false ->
  glob (b :: g) c = match c with [] => false | x :: c' => (b =? x) && glob g c' end.
Proof. intros b g c H. cbn [glob]. rewrite H. reflexivity. Qed.

Lemma glob_closure : forall h h' tail tail' c, In (h', tail') (closure_of h tail) -> glob tail' c = true ->
  h' = h /\ glob tail c = true.
Proof.
  induction tail as [|b tail IH]; intros tail' c H G; cbn [closure_of] in H.
  - destruct H as [H|[]]. injection H as <- <-. auto.
  - destruct H as [H|H]; [injection H as <- <-; auto|].
    destruct (N.eqb_spec b star) as [->|]; [|destruct H].
    destruct (IH _ _ H G) as [-> G']. split; [reflexivity|]. rewrite glob_star, G'. reflexivity.
Qed.

Definition settled (ps : list position) := forall h tail, In (h, star :: tail) ps -> In (h, tail) ps.
Definition possible (ps : list position) (h : component) (bytes : component) :=
  exists tail, In (h, tail) ps /\ glob tail bytes = true.

Lemma closure_self : forall h tail, In (h, tail) (closure_of h tail).
Proof. intros h []; left; reflexivity. Qed.

Lemma closure_settled : forall ps, settled (closure ps).
Proof.
  intros ps h tail H. unfold closure in *. rewrite nodup_In in *. apply in_flat_map in H as (p & Hp & H).
  apply in_flat_map. exists p. split; [exact Hp|]. destruct p as [h0 l0]. cbn [fst snd] in *. clear Hp.
  induction l0 as [|b l0 IH]; cbn [closure_of] in *.
  - destruct H as [H|[]]. discriminate.
  - destruct H as [H|H].
    + injection H as <- -> ->. right. apply closure_self.
    + destruct (b =? star); [right; auto | destruct H].
Qed.

Lemma possible_closure : forall ps h bytes, possible (closure ps) h bytes <-> possible ps h bytes.
Proof.
  intros. unfold possible, closure. split.
  - intros (tail & H & G). rewrite nodup_In in H. apply in_flat_map in H as ([h0 l0] & Hp & H). cbn [fst snd] in H.
    destruct (glob_closure _ _ _ _ _ H G) as [-> G']. eauto.
  - intros (tail & H & G). exists tail. split; [|exact G]. rewrite nodup_In. apply in_flat_map.
    exists (h, tail). split; [exact H | apply closure_self].
Qed.

Lemma possible_nil : forall ps h, settled ps -> possible ps h [] <-> In (h, []) ps.
Proof.
  intros ps h Hc. split; [|intros H; exists []; auto].
  intros (tail & H & G). induction tail as [|b tail IH]; [exact H|].
  destruct (N.eqb_spec b star) as [->|Hb].
  - rewrite glob_star, orb_false_r in G. apply IH; [apply Hc; exact H | exact G].
  - rewrite glob_byte in G by (apply N.eqb_neq; exact Hb). discriminate.
Qed.

Lemma possible_cons : forall ps h b bytes, settled ps -> possible ps h (b :: bytes) <-> possible (step_byte ps b) h bytes.
Proof.
  intros ps h b bytes Hc. unfold step_byte. rewrite possible_closure. split.
  - intros (tail & H & G). induction tail as [|c tail IH]; [discriminate|].
    destruct (N.eqb_spec c star) as [->|Hne].
    + rewrite glob_star in G. apply orb_true_iff in G as [G|G]; [apply IH; [apply Hc; exact H | exact G]|].
      exists (star :: tail). split; [|exact G]. apply in_flat_map. exists (h, star :: tail). split; [exact H | left; reflexivity].
    + apply N.eqb_neq in Hne. rewrite glob_byte in G by exact Hne. apply andb_true_iff in G as [Hb G].
      exists tail. split; [|exact G]. apply in_flat_map. exists (h, c :: tail). split; [exact H|].
      unfold after_byte. cbn [snd fst]. rewrite Hne, Hb. left. reflexivity.
  - intros (tail & H & G). apply in_flat_map in H as ([h0 [|c l0]] & Hp & H); unfold after_byte in H; cbn [snd fst] in H.
    + destruct H.
    + destruct (N.eqb_spec c star) as [->|Hne].
      * destruct H as [H|[]]. injection H as <- <-. exists (star :: l0). split; [exact Hp|].
        rewrite glob_star, G. apply orb_true_r.
      * destruct (c =? b) eqn:Hb; [|destruct H]. destruct H as [H|[]]. injection H as <- <-.
        exists (c :: l0). split; [exact Hp|]. rewrite glob_byte by (apply N.eqb_neq; exact Hne). rewrite Hb. exact G.
Qed.

(** The heads that match completely. *)
Definition ended (ps : list position) (h : component) : bool :=
  existsb (fun p => match snd p with [] => if component_dec h (fst p) then true else false | _ :: _ => false end) ps.

Lemma ended_spec : forall ps h, ended ps h = true <-> In (h, []) ps.
Proof.
  intros. unfold ended. rewrite existsb_exists. split.
  - intros ([h0 [|b l]] & H & E); cbn [snd fst] in E; [|discriminate].
    destruct (component_dec h h0) as [->|]; [exact H | discriminate].
  - intros H. exists (h, []). split; [exact H|]. cbn. destruct (component_dec h h); [reflexivity | congruence].
Qed.

Lemma ended_steps : forall bytes ps h, settled ps -> ended (fold_left step_byte bytes ps) h = true <-> possible ps h bytes.
Proof.
  induction bytes as [|b bytes IH]; intros ps h Hc; cbn [fold_left].
  - rewrite ended_spec, possible_nil by exact Hc. reflexivity.
  - rewrite IH by apply closure_settled. rewrite possible_cons by exact Hc. reflexivity.
Qed.

Definition starts (heads : list component) := closure (map (fun h => (h, h)) heads).

Lemma ended_glob : forall heads h bytes, In h heads -> ended (fold_left step_byte bytes (starts heads)) h = glob h bytes.
Proof.
  intros heads h bytes Hh. apply iff_bool. rewrite ended_steps by apply closure_settled. unfold starts.
  rewrite possible_closure. unfold possible. split.
  - intros (tail & H & G). apply in_map_iff in H as (h0 & H & _). injection H as <- <-. exact G.
  - intros G. exists h. split; [apply in_map_iff; eauto | exact G].
Qed.

(** * Components: a state is the rest of each pattern *)

Definition items := list (pattern * N).

Definition segment_dec : forall a b : segment, {a = b} + {a <> b}.
Proof. decide equality; apply component_dec. Defined.
Definition pattern_dec : forall a b : pattern, {a = b} + {a <> b}.
Proof. decide equality; [apply bool_dec | apply (list_eq_dec segment_dec)]. Defined.
Definition items_dec : forall a b : items, {a = b} + {a <> b}.
Proof. apply list_eq_dec. decide equality; [apply N.eq_dec | apply pattern_dec]. Defined.

(** _after: [matched] heads, and the heads that match any component. *)
Definition left_of (matched : component -> bool) (e : pattern * N) : items :=
  match fst (fst e) with
  | [] => if snd (fst e) then [e] else []
  | Any :: rest => [((rest, snd (fst e)), snd e)]
  | Glob g :: rest => if matched g then [((rest, snd (fst e)), snd e)] else []
  end.
Definition after (s : items) (matched : component -> bool) : items := table pattern_dec (flat_map (left_of matched) s).
Definition derive (s : items) (c : component) : items := after s (fun g => glob g c).

Definition marks_of (s : items) : N :=
  union (map snd (filter (fun e => match fst (fst e) with [] => true | _ :: _ => false end) s)).

(** Some pattern with mark [i] matches the path. *)
Definition accepts (s : items) (p : list component) (i : nat) := has (fun g => matches g p = true) s i.

Lemma accepts_derive : forall s c p i, accepts (derive s c) p i <-> accepts s (c :: p) i.
Proof.
  intros. unfold accepts, derive, after. rewrite has_table. unfold has. split.
  - intros (g & m & H & M & Hi). apply in_flat_map in H as ([[segs t] m0] & He & H). unfold left_of in H. cbn [fst snd] in H.
    exists (segs, t), m0. destruct segs as [|[|h] rest].
    + destruct t; [|destruct H]. destruct H as [H|[]]. injection H as <- <-. auto.
    + destruct H as [H|[]]. injection H as <- <-. auto.
    + destruct (glob h c) eqn:G; [|destruct H]. destruct H as [H|[]]. injection H as <- <-.
      split; [exact He|]. split; [|exact Hi]. unfold matches in *. cbn in *. rewrite G. exact M.
  - intros ([segs t] & m & H & M & Hi). destruct segs as [|[|h] rest]; unfold matches in M; cbn in M.
    + exists ([], t), m. subst t. split; [|split; [destruct p; reflexivity | exact Hi]].
      apply in_flat_map. exists ([], true, m). split; [exact H | left; reflexivity].
    + exists (rest, t), m. split; [|auto]. apply in_flat_map. exists (Any :: rest, t, m). split; [exact H | left; reflexivity].
    + apply andb_true_iff in M as [G M]. exists (rest, t), m. split; [|auto].
      apply in_flat_map. exists (Glob h :: rest, t, m). split; [exact H|]. unfold left_of. cbn. rewrite G. left. reflexivity.
Qed.

Lemma accepts_walk : forall p s i, accepts (fold_left derive p s) [] i <-> accepts s p i.
Proof.
  induction p as [|c p IH]; intros; cbn [fold_left]; [reflexivity|]. rewrite IH. apply accepts_derive.
Qed.

Lemma marks_accepts : forall s i, (marks_of s).[i] = true <-> accepts s [] i.
Proof.
  intros. unfold marks_of, accepts, has. rewrite union_spec, existsb_exists. split.
  - intros (m & H & Hi). apply in_map_iff in H as ([[segs t] m0] & E & H). cbn [snd] in E. subst m0.
    apply filter_In in H as [H E]. cbn [fst] in E. destruct segs; [|discriminate]. exists ([], t), m. auto.
  - intros ([[|h segs] t] & m & H & M & Hi); [|discriminate M]. exists m. split; [|exact Hi].
    apply in_map_iff. exists ([], t, m). split; [reflexivity|]. apply filter_In. auto.
Qed.

Definition heads_of (s : items) : list component :=
  nodup component_dec (flat_map (fun e => match fst (fst e) with Glob g :: _ => [g] | _ => [] end) s).

Lemma after_ext : forall s m m', (forall h, In h (heads_of s) -> m h = m' h) -> after s m = after s m'.
Proof.
  intros s m m' H. unfold after. f_equal. unfold heads_of in H.
  induction s as [|[[segs t] mark] s IH]; [reflexivity|]. cbn [flat_map] in *. f_equal.
  - unfold left_of. cbn [fst snd]. destruct segs as [|[|h] rest]; try reflexivity.
    rewrite H; [reflexivity|]. rewrite nodup_In. cbn. auto.
  - apply IH. intros h Hh. apply H. rewrite nodup_In in *. apply in_app_iff. auto.
Qed.

(** * The tables of one state: _expand *)

Record row (A : Type) := Row { target : A; next : list (N * nat); other : nat }.
Arguments Row {A}. Arguments target {A}. Arguments next {A}. Arguments other {A}.
Record node (A : Type) := Node { marks : N; otherwise : A; edges : list (component * A); rows : list (row A) }.
Arguments Node {A}. Arguments marks {A}. Arguments otherwise {A}. Arguments edges {A}. Arguments rows {A}.

Definition COMPONENT := 36%nat.
Definition literal (h : component) := forallb (fun b => negb (b =? star)) h && Nat.ltb (length h) COMPONENT.

(** A row plus one; 0: none. *)
Definition number (all : list (list position)) (ps : list position) : nat :=
  match ps with [] => O | _ :: _ => S (index (list_eq_dec position_dec) ps all) end.

Definition row_of (s : items) (all : list (list position)) (ps : list position) : row items :=
  Row (after s (ended ps)) (map (fun b => (b, number all (step_byte ps b))) (awaited ps)) (number all (step_other ps)).

Definition following (ps : list position) : option (list (list position)) :=
  Some (filter (fun l => match l with [] => false | _ :: _ => true end) (step_other ps :: map (step_byte ps) (awaited ps))).

Definition expand (fuel : nat) (s : items) : option (node items) :=
  let heads := heads_of s in
  let otherwise := after s (fun _ => false) in
  if forallb literal heads
  then Some (Node (marks_of s) otherwise
                  (map (fun h => (h, after s (fun g => if component_dec g h then true else false))) heads) [])
  else match explore (list_eq_dec position_dec) following fuel [starts heads] [starts heads] with
       | Some all => Some (Node (marks_of s) otherwise [] (map (row_of s all) all))
       | None => None
       end.

(** ** Lookup: kernel_model.step, guard_step *)

Definition next_of {A} (r : row A) (b : N) : nat :=
  match find (fun e => fst e =? b) (next r) with Some e => snd e | None => other r end.

Fixpoint run_rows {A} (rs : list (row A)) (otherwise : A) (at_ : nat) (bytes : component) {struct bytes} : A :=
  match at_ with
  | O => otherwise
  | S i =>
      match nth_error rs i with
      | None => otherwise
      | Some r => match bytes with [] => target r | b :: bytes' => run_rows rs otherwise (next_of r b) bytes' end
      end
  end.

Definition step_node {A} (n : node A) (c : component) : A :=
  match rows n with
  | [] =>
      if Nat.leb COMPONENT (length c) then otherwise n
      else match find (fun e => if component_dec c (fst e) then true else false) (edges n) with
           | Some e => snd e
           | None => otherwise n
           end
  | _ :: _ => run_rows (rows n) (otherwise n) 1 c
  end.

Lemma literal_glob : forall h c, forallb (fun b => negb (b =? star)) h = true ->
  glob h c = if component_dec h c then true else false.
Proof.
  induction h as [|b h IH]; intros c L.
  - destruct c; [reflexivity | destruct (component_dec [] (n :: c)); [discriminate | reflexivity]].
  - cbn [forallb] in L. apply andb_true_iff in L as [Lb L]. apply negb_true_iff in Lb. rewrite glob_byte by exact Lb.
    destruct c as [|x c]; [destruct (component_dec (b :: h) []); [discriminate | reflexivity]|].
    rewrite IH by exact L. destruct (component_dec h c) as [->|Hne].
    + rewrite andb_true_r. destruct (N.eqb_spec b x) as [->|Hb].
      * destruct (component_dec (x :: c) (x :: c)); congruence.
      * destruct (component_dec (b :: c) (x :: c)); congruence.
    + rewrite andb_false_r. destruct (component_dec (b :: h) (x :: c)); congruence.
Qed.

Section Rows.
  Variables (s : items) (all : list (list position)).
  Hypothesis whole : forall ps, In ps all -> exists l, following ps = Some l /\ incl l all.

  Lemma step_inside : forall ps b, In ps all -> step_byte ps b = [] \/ In (step_byte ps b) all.
  Proof.
    intros ps b H. destruct (whole ps H) as (l & E & I). apply some_inj in E. subst l.
    destruct (step_byte ps b) as [|q qs] eqn:Eq; [auto|]. right. apply I. apply filter_In. split; [|reflexivity].
    destruct (in_dec N.eq_dec b (awaited ps)) as [Hb|Hb].
    - right. apply in_map_iff. eauto.
    - left. rewrite <- step_other_byte with (b := b) by exact Hb. exact Eq.
  Qed.

  Lemma next_of_row : forall ps b, next_of (row_of s all ps) b = number all (step_byte ps b).
  Proof.
    intros. unfold next_of, row_of. cbn [next other].
    destruct (find _ _) as [[b0 n]|] eqn:F.
    - apply find_some in F as [H E]. cbn [fst] in E. apply N.eqb_eq in E. subst b0.
      apply in_map_iff in H as (b1 & E & _). injection E as -> <-. reflexivity.
    - rewrite (step_other_byte ps b); [reflexivity|]. intros Hb.
      assert (C : (b =? b) = false).
      { apply (find_none _ _ F (b, number all (step_byte ps b))). apply in_map_iff. eauto. }
      rewrite N.eqb_refl in C. discriminate.
  Qed.

  Lemma steps_none : forall bytes, fold_left step_byte bytes [] = [].
  Proof. induction bytes as [|b bytes IH]; [reflexivity | exact IH]. Qed.

  Lemma run_rows_spec : forall bytes ps, ps = [] \/ In ps all ->
    run_rows (map (row_of s all) all) (after s (fun _ => false)) (number all ps) bytes
    = after s (ended (fold_left step_byte bytes ps)).
  Proof.
    induction bytes as [|b bytes IH]; intros [|p ps] H.
    - reflexivity.
    - destruct H as [H|H]; [discriminate|]. cbn [number run_rows]. rewrite nth_error_map, index_nth by exact H. reflexivity.
    - cbn [number run_rows]. change (fold_left step_byte (b :: bytes) []) with (fold_left step_byte bytes []).
      rewrite steps_none. reflexivity.
    - destruct H as [H|H]; [discriminate|]. cbn [number run_rows]. rewrite nth_error_map, index_nth by exact H.
      cbn [option_map]. rewrite next_of_row. apply IH. apply step_inside. exact H.
  Qed.
End Rows.

Lemma expand_step : forall fuel s n c, expand fuel s = Some n -> step_node n c = derive s c.
Proof.
  intros fuel s n c E. unfold expand in E. destruct (forallb literal (heads_of s)) eqn:L.
  - injection E as <-. unfold step_node. cbn [rows otherwise edges]. rewrite forallb_forall in L. unfold derive.
    assert (Lit : forall h, In h (heads_of s) -> glob h c = if component_dec h c then true else false).
    { intros h Hh. apply literal_glob. apply L in Hh. apply andb_true_iff in Hh as [Hh _]. exact Hh. }
    destruct (find _ _) as [[h t]|] eqn:F.
    + apply find_some in F as [H E]. cbn [fst] in E. destruct (component_dec c h) as [<-|]; [|discriminate].
      apply in_map_iff in H as (h0 & H & Hh). injection H as -> <-.
      replace (Nat.leb COMPONENT (length c)) with false.
      * cbn [snd]. apply after_ext. intros h Hin. rewrite Lit by exact Hin. reflexivity.
      * symmetry. apply L in Hh. apply andb_true_iff in Hh as [_ Hh]. apply Nat.ltb_lt in Hh. apply Nat.leb_gt. exact Hh.
    + assert (Q : after s (fun _ => false) = after s (fun g => glob g c)).
      { apply after_ext. intros h Hh. rewrite Lit by exact Hh. destruct (component_dec h c) as [->|]; [|reflexivity].
        exfalso.
        assert (C : (if component_dec c c then true else false) = false).
        { apply (find_none _ _ F (c, after s (fun g => if component_dec g c then true else false))). apply in_map_iff. eauto. }
        destruct (component_dec c c); congruence. }
      destruct (Nat.leb COMPONENT (length c)); exact Q.
  - destruct (explore _ _ _ _ _) as [all|] eqn:X; [|discriminate]. injection E as <-.
    destruct (explore_closed _ _ _ _ _ _ X) as [(more & Hmore) Hall]; [intros ps Hps; left; exact Hps|].
    unfold step_node. cbn [rows otherwise]. unfold derive.
    destruct (map (row_of s all) all) as [|r rs] eqn:Er.
    + rewrite Hmore in Er. discriminate.
    + rewrite <- Er. clear r rs Er.
      replace 1%nat with (number all (starts (heads_of s))).
      * rewrite run_rows_spec; [|exact Hall | right; rewrite Hmore; left; reflexivity].
        apply after_ext. intros h Hh. apply ended_glob. exact Hh.
      * unfold number. destruct (starts (heads_of s)) as [|p ps] eqn:Es.
        -- exfalso. destruct (heads_of s) as [|h hs]; [discriminate|].
           assert (H : In (h, h) (starts (h :: hs))).
           { unfold starts, closure. rewrite nodup_In. apply in_flat_map. exists (h, h). split; [left; reflexivity|].
             apply closure_self. }
           rewrite Es in H. destruct H.
        -- rewrite Hmore. cbn [app index]. destruct (list_eq_dec position_dec (p :: ps) (p :: ps)); [reflexivity | congruence].
Qed.

(** ** Each successor of a state is reached by some component *)

Definition succs {A} (n : node A) : list A := otherwise n :: map snd (edges n) ++ map target (rows n).

Lemma succs_step : forall {A} (n : node A) c, In (step_node n c) (succs n).
Proof.
  intros A n c. unfold step_node, succs.
  assert (R : forall bytes at_, In (run_rows (rows n) (otherwise n) at_ bytes) (otherwise n :: map target (rows n))).
  { induction bytes as [|b bytes IH]; intros [|i]; cbn [run_rows]; try (left; reflexivity);
      destruct (nth_error (rows n) i) as [r|] eqn:E; try (left; reflexivity).
    - right. apply in_map_iff. exists r. split; [reflexivity | exact (nth_error_In _ _ E)].
    - apply IH. }
  assert (I : In (if Nat.leb COMPONENT (length c) then otherwise n
      else match find (fun e => if component_dec c (fst e) then true else false) (edges n) with
           | Some e => snd e | None => otherwise n end) (otherwise n :: map snd (edges n) ++ map target (rows n))).
  { destruct (Nat.leb COMPONENT (length c)); [left; reflexivity|]. destruct (find _ _) as [e|] eqn:F; [|left; reflexivity].
    apply find_some in F as [F _]. right. apply in_app_iff. left. apply in_map. exact F. }
  destruct (rows n) as [|r rs] eqn:Er; [exact I|]. rewrite <- Er in *.
  destruct (R c 1%nat) as [H|H]; [left; exact H | right; apply in_app_iff; right; exact H].
Qed.

(** No head matches the name that represents all other names. *)
Definition plain_pattern (g : pattern) : bool :=
  forallb (fun s => match s with Any => true | Glob h => negb (glob h nobody) end) (fst g).
Definition plain_items (s : items) := forall e, In e s -> plain_pattern (fst e) = true.

Lemma plain_heads : forall s h, plain_items s -> In h (heads_of s) -> glob h nobody = false.
Proof.
  intros s h H Hh. unfold heads_of in Hh. rewrite nodup_In in Hh. apply in_flat_map in Hh as ([[segs t] m] & He & Hh).
  apply H in He. cbn [fst] in *. destruct segs as [|[|g] rest]; try destruct Hh as [<-|[]]; try destruct Hh.
  unfold plain_pattern in He. cbn in He. apply andb_true_iff in He as [He _]. apply negb_true_iff in He. exact He.
Qed.

Lemma In_put : forall (K : Type) (same : forall a b : K, {a = b} + {a <> b}) t k m e, In e (put same k m t) ->
  fst e = k \/ exists m', In (fst e, m') t.
Proof.
  induction t as [|[k0 m0] t IH]; intros k m e H; cbn [put] in H.
  - destruct H as [<-|[]]. auto.
  - destruct (same k k0) as [<-|].
    + destruct H as [<-|H]; [auto|]. right. exists (snd e). right. destruct e; exact H.
    + destruct H as [<-|H]; [right; exists m0; left; reflexivity|].
      destruct (IH _ _ _ H) as [?|(m' & Hm)]; [auto | right; exists m'; right; exact Hm].
Qed.

Lemma In_table : forall (K : Type) (same : forall a b : K, {a = b} + {a <> b}) entries e, In e (table same entries) ->
  exists m, In (fst e, m) entries.
Proof.
  intros K same entries e. unfold table.
  assert (G : forall t, In e (fold_left (fun t e => put same (fst e) (snd e) t) entries t) ->
                        (exists m, In (fst e, m) entries) \/ exists m, In (fst e, m) t).
  { induction entries as [|[k m] entries IH]; intros t H; cbn [fold_left] in H.
    - right. exists (snd e). destruct e; exact H.
    - destruct (IH _ H) as [(m' & Hm)|(m' & Hm)]; [left; exists m'; right; exact Hm|].
      cbn [fst snd] in Hm. apply In_put in Hm as [Hm|(m1 & Hm)]; cbn [fst] in Hm.
      + left. exists m. left. rewrite Hm. reflexivity.
      + right. exists m1. exact Hm. }
  intros H. destruct (G [] H) as [?|(m & [])]; assumption.
Qed.

Lemma plain_after : forall s m, plain_items s -> plain_items (after s m).
Proof.
  intros s m H e He. apply In_table in He as (mark & He). apply in_flat_map in He as ([[segs t] m0] & Hin & He).
  apply H in Hin. unfold left_of, plain_pattern in *. cbn [fst snd] in *. destruct segs as [|[|g] rest]; cbn in *.
  - destruct t; [|destruct He]. destruct He as [He|[]]. injection He as <- _. reflexivity.
  - destruct He as [He|[]]. injection He as <- _. exact Hin.
  - apply andb_true_iff in Hin as [_ Hin]. destruct (m g); [|destruct He]. destruct He as [He|[]]. injection He as <- _. exact Hin.
Qed.

Lemma fresh : forall l : list N, exists b, ~ In b l.
Proof.
  intros l. exists (1 + fold_right N.max 0 l). intros H.
  assert (forall x, In x l -> x <= fold_right N.max 0 l).
  { clear H. induction l as [|y l IH]; intros x []; cbn [fold_right]; [subst; lia | specialize (IH x H); lia]. }
  specialize (H0 _ H). lia.
Qed.

Lemma succs_reached : forall fuel s n j, expand fuel s = Some n -> plain_items s -> In j (succs n) ->
  exists c, step_node n c = j.
Proof.
  intros fuel s n j E P H. destruct H as [<-|H].
  - exists nobody. rewrite (expand_step _ _ _ _ E). unfold derive.
    assert (Q : otherwise n = after s (fun _ => false)).
    { unfold expand in E. destruct (forallb literal (heads_of s)); [injection E as <-; reflexivity|].
      destruct (explore _ _ _ _ _); [injection E as <-; reflexivity | discriminate]. }
    rewrite Q. apply after_ext. intros h Hh. exact (plain_heads s h P Hh).
  - assert (D : forall c, step_node n c = derive s c) by (intros; exact (expand_step _ _ _ _ E)).
    unfold expand in E. destruct (forallb literal (heads_of s)) eqn:L.
    + injection E as <-. cbn [edges rows map] in H. rewrite app_nil_r, map_map in H. cbn [snd] in H.
      apply in_map_iff in H as (h & <- & Hh). exists h. rewrite D. unfold derive. apply after_ext. intros g Hg.
      rewrite forallb_forall in L. apply L in Hg. apply andb_true_iff in Hg as [Hg _]. apply literal_glob. exact Hg.
    + destruct (explore _ _ _ _ _) as [all|] eqn:X; [|discriminate]. injection E as <-. cbn [edges rows map app] in H.
      rewrite map_map in H. cbn [target row_of] in H. apply in_map_iff in H as (ps & <- & Hps).
      assert (G : Forall (fun ps => exists bytes, ps = fold_left step_byte bytes (starts (heads_of s))) all).
      { refine (explore_all _ _ _ _ _ _ _ _ X _ _).
        - intros q l (bytes & ->) F. apply some_inj in F. subst l. apply Forall_forall. intros x Hx. apply filter_In in Hx as [Hx _].
          destruct Hx as [<-|Hx].
          + destruct (fresh (awaited (fold_left step_byte bytes (starts (heads_of s))))) as (b & Hb).
            exists (bytes ++ [b]). rewrite fold_left_app. cbn [fold_left]. symmetry. apply step_other_byte. exact Hb.
          + apply in_map_iff in Hx as (b & <- & _). exists (bytes ++ [b]). rewrite fold_left_app. reflexivity.
        - constructor; [exists []; reflexivity | constructor].
        - intros x Hx. exact Hx. }
      rewrite Forall_forall in G. destruct (G _ Hps) as (bytes & ->). exists bytes. rewrite D. unfold derive.
      apply after_ext. intros h Hh. symmetry. apply ended_glob. exact Hh.
Qed.

(** * All states, numbered: build *)

Definition map_row {A B} (f : A -> B) (r : row A) : row B := Row (f (target r)) (next r) (other r).
Definition map_node {A B} (f : A -> B) (n : node A) : node B :=
  Node (marks n) (f (otherwise n)) (map (fun e => (fst e, f (snd e))) (edges n)) (map (map_row f) (rows n)).

Lemma step_map : forall A B (f : A -> B) n c, step_node (map_node f n) c = f (step_node n c).
Proof.
  intros A B f n c. unfold step_node, map_node. cbn [rows otherwise edges].
  assert (R : forall bytes at_, run_rows (map (map_row f) (rows n)) (f (otherwise n)) at_ bytes
                                = f (run_rows (rows n) (otherwise n) at_ bytes)).
  { induction bytes as [|b bytes IH]; intros [|i]; cbn [run_rows]; try reflexivity; rewrite nth_error_map;
      destruct (nth_error (rows n) i); cbn [option_map]; try reflexivity. apply IH. }
  assert (E : find (fun e => if component_dec c (fst e) then true else false) (map (fun e => (fst e, f (snd e))) (edges n))
              = option_map (fun e => (fst e, f (snd e))) (find (fun e => if component_dec c (fst e) then true else false) (edges n))).
  { induction (edges n) as [|e es IH]; [reflexivity|]. cbn [map find fst]. unfold component in *.
    destruct (component_dec c (fst e)); [reflexivity | exact IH]. }
  destruct (rows n) as [|r rs] eqn:Er; cbn [map].
  - rewrite E. destruct (Nat.leb COMPONENT (length c)); [reflexivity|].
    destruct (find (fun e => if component_dec c (fst e) then true else false) (edges n)); reflexivity.
  - exact (R c 1%nat).
Qed.

Lemma succs_map : forall A B (f : A -> B) n, succs (map_node f n) = map f (succs n).
Proof. intros. unfold succs, map_node. cbn. rewrite map_app, !map_map. reflexivity. Qed.

Fixpoint all_some {A} (l : list (option A)) : option (list A) :=
  match l with
  | [] => Some []
  | Some a :: l' => match all_some l' with Some r => Some (a :: r) | None => None end
  | None :: _ => None
  end.

Lemma all_some_nth : forall A (l : list (option A)) r i, all_some l = Some r -> nth_error l i = option_map Some (nth_error r i).
Proof.
  induction l as [|[a|] l IH]; intros r i E; cbn [all_some] in E.
  - injection E as <-. destruct i; reflexivity.
  - destruct (all_some l) as [r'|]; [|discriminate]. injection E as <-. destruct i; [reflexivity|]. cbn [nth_error]. apply IH. reflexivity.
  - discriminate.
Qed.

Definition nonempty (s : items) := match s with [] => false | _ :: _ => true end.
Definition after_state (fuel : nat) (s : items) : option (list items) := option_map succs (expand fuel s).

(** [None]: more states than [fuel], as TooLarge. *)
Definition order (fuel : nat) (roots : list items) : option (list items) :=
  let first := [] :: filter nonempty (nodup items_dec roots) in
  explore items_dec (after_state fuel) fuel first first.

Definition build (fuel : nat) (roots : list items) : option (list (node nat) * list nat) :=
  match order fuel roots with
  | None => None
  | Some all =>
      match all_some (map (fun s => option_map (map_node (fun s' => index items_dec s' all)) (expand fuel s)) all) with
      | None => None
      | Some t => Some (t, map (fun s => index items_dec s all) roots)
      end
  end.

Definition step (t : list (node nat)) (s : nat) (c : component) : nat :=
  match nth_error t s with Some n => step_node n c | None => O end.
(** Below the dead state nothing matches. *)
Fixpoint walk (t : list (node nat)) (s : nat) (p : list component) : nat :=
  match p with [] => s | c :: p' => match s with O => O | S _ => walk t (step t s c) p' end end.

Section Built.
  Variables (fuel : nat) (roots : list items) (t : list (node nat)) (ns : list nat).
  Hypothesis built : build fuel roots = Some (t, ns).

  Definition stands (n : nat) (s : items) := exists all, order fuel roots = Some all /\ nth_error all n = Some s.

  Lemma parts : exists all, order fuel roots = Some all
    /\ (forall s, In s all -> exists l, after_state fuel s = Some l /\ incl l all)
    /\ (exists more, all = ([] :: filter nonempty (nodup items_dec roots)) ++ more)
    /\ ns = map (fun s => index items_dec s all) roots
    /\ forall i s, nth_error all i = Some s -> exists n, expand fuel s = Some n
         /\ nth_error t i = Some (map_node (fun s' => index items_dec s' all) n).
  Proof.
    unfold build in built. destruct (order fuel roots) as [all|] eqn:O; [|discriminate].
    destruct (all_some _) as [t'|] eqn:A; [|discriminate]. injection built as -> <-.
    exists all. unfold order in O. destruct (explore_closed _ _ _ _ _ _ O) as [M C]; [intros; left; assumption|].
    repeat split; auto. intros i s H. pose proof (all_some_nth _ _ _ i A) as N.
    rewrite nth_error_map, H in N. cbn [option_map] in N.
    destruct (nth_error t i) as [x|]; [|discriminate]. cbn [option_map] in N. injection N as N.
    destruct (expand fuel s) as [n|]; [|discriminate]. injection N as <-. eauto.
  Qed.

  Lemma stands_dead : stands 0 [].
  Proof. destruct parts as (all & O & _ & (more & ->) & _). exists (([] :: filter nonempty (nodup items_dec roots)) ++ more). auto. Qed.

  Lemma stands_root : forall k s, nth_error roots k = Some s -> exists n, nth_error ns k = Some n /\ stands n s.
  Proof.
    intros k s H. destruct parts as (all & O & _ & (more & M) & -> & _).
    exists (index items_dec s all). rewrite nth_error_map, H. split; [reflexivity|]. exists all. split; [exact O|].
    apply index_nth. rewrite M. apply in_app_iff. left. destruct s as [|e s]; [left; reflexivity|]. right.
    apply filter_In. split; [|reflexivity]. apply nodup_In. exact (nth_error_In _ _ H).
  Qed.

  Lemma stands_node : forall n s, stands n s -> exists x, nth_error t n = Some x /\ marks x = marks_of s
    /\ (forall c, stands (step t n c) (derive s c))
    /\ (forall m, In m (succs x) -> plain_items s -> exists c, step t n c = m).
  Proof.
    intros n s (all & O & H). destruct parts as (all' & O' & C & _ & _ & N). rewrite O in O'. injection O' as <-.
    destruct (N _ _ H) as (x & E & T). exists (map_node (fun s' => index items_dec s' all) x). split; [exact T|].
    assert (Q : forall c, step t n c = index items_dec (derive s c) all).
    { intros c. unfold step. rewrite T, step_map, (expand_step _ _ _ _ E). reflexivity. }
    repeat split.
    - cbn [map_node marks]. unfold expand in E. destruct (forallb literal (heads_of s)); [injection E as <-; reflexivity|].
      destruct (explore _ _ _ _ _); [injection E as <-; reflexivity | discriminate].
    - intros c. exists all. split; [exact O|]. rewrite Q. apply index_nth.
      destruct (C s (nth_error_In _ _ H)) as (l & L & I). unfold after_state in L. rewrite E in L. injection L as <-.
      apply I. rewrite <- (expand_step _ _ _ c E). apply succs_step.
    - intros m Hm P. rewrite succs_map in Hm. apply in_map_iff in Hm as (s' & <- & Hs).
      destruct (succs_reached _ _ _ _ E P Hs) as (c & <-). exists c. rewrite Q, (expand_step _ _ _ c E). reflexivity.
  Qed.

  Lemma stands_unique : forall n s s', stands n s -> stands n s' -> s = s'.
  Proof. intros n s s' (a & O & H) (a' & O' & H'). congruence. Qed.

  Lemma derive_dead : forall p, fold_left derive p [] = [].
  Proof. induction p as [|c p IH]; [reflexivity | exact IH]. Qed.

  Lemma stands_walk : forall p n s, stands n s -> stands (walk t n p) (fold_left derive p s).
  Proof.
    induction p as [|c p IH]; intros n s H; cbn [walk fold_left]; [exact H|].
    destruct n as [|n].
    - rewrite (stands_unique _ _ _ H stands_dead). change (derive [] c) with (@nil (pattern * N)). rewrite derive_dead.
      apply stands_dead.
    - apply IH. destruct (stands_node _ _ H) as (x & _ & _ & S & _). apply S.
  Qed.

  (** The marks of the state that a path leads to are those of the patterns that match it. *)
  Theorem walk_marks : forall n s p, stands n s -> exists x, nth_error t (walk t n p) = Some x
    /\ forall i, (marks x).[i] = true <-> accepts s p i.
  Proof.
    intros n s p H. destruct (stands_node _ _ (stands_walk p _ _ H)) as (x & T & M & _). exists x. split; [exact T|].
    intros i. rewrite M, marks_accepts, accepts_walk. reflexivity.
  Qed.
End Built.
