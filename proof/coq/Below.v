(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** `reaches` and `pervades` of Meaning.v: some path, or every path, that could be below a directory is covered. And how
    the tables represent this: compile._below over the states of an automaton. *)

From Coq Require Import NArith List Bool Lia Arith.
From Guard Require Import Meaning Vectors Automaton.
Import ListNotations.
Open Scope N_scope.

Definition extend (w : location) (below : list component) : location :=
  Location (device w) (path w ++ below) (pseudo w) (lost w).

(** * The meaning *)

Lemma glob_self : forall g, exists c, glob g c = true.
Proof.
  induction g as [|b g (c & IH)]; [exists []; reflexivity|].
  destruct (N.eqb_spec b star) as [->|H].
  - exists c. rewrite glob_star, IH. reflexivity.
  - exists (b :: c). rewrite glob_byte by (apply N.eqb_neq; exact H). rewrite N.eqb_refl. exact IH.
Qed.

Lemma begins_spec : forall head tree p, begins head tree p = true <-> exists below, matches_from head tree (p ++ below) = true.
Proof.
  induction head as [|s head IH]; intros tree p.
  - destruct p as [|c p]; cbn.
    + split; [intros _; exists []; reflexivity | reflexivity].
    + split; [intros ->; exists []; reflexivity | intros (b & H); exact H].
  - destruct p as [|c p].
    + cbn [begins app]. split; [intros _|reflexivity].
      assert (E : exists c, segment_matches s c = true).
      { destruct s as [|g]; [exists []; reflexivity | destruct (glob_self g) as (c & G); exists c; exact G]. }
      destruct E as (c & E). destruct (proj1 (IH tree [])) as (b & Hb); [destruct head; reflexivity|].
      exists (c :: b). cbn. rewrite E. exact Hb.
    + cbn. rewrite andb_true_iff, IH. split.
      * intros (E & b & H). exists b. rewrite E. exact H.
      * intros (b & H). apply andb_true_iff in H as [E H]. split; [exact E | exists b; exact H].
Qed.

Lemma some_below_spec : forall gs p,
  some_below gs p = true <-> exists below, existsb (fun g => matches g (p ++ below)) gs = true.
Proof.
  intros. unfold some_below. rewrite existsb_exists. split.
  - intros (g & Hg & H). apply begins_spec in H as (b & H). exists b. apply existsb_exists. exists g. auto.
  - intros (b & H). apply existsb_exists in H as (g & Hg & H). exists g. split; [exact Hg|]. apply begins_spec. exists b. exact H.
Qed.

(** A pattern that matches the representative name matches every name. *)
Lemma nobody_all : forall head tree p below, plain_pattern (head, tree) = true ->
  matches_from head tree (p ++ repeat nobody (length below)) = true -> matches_from head tree (p ++ below) = true.
Proof.
  induction head as [|s head IH]; intros tree p below P M.
  - destruct p as [|c p]; [|exact M]. destruct below; [reflexivity | exact M].
  - unfold plain_pattern in P. cbn [fst forallb] in P. apply andb_true_iff in P as [Ps P].
    destruct p as [|c p].
    + destruct below as [|c below]; [exact M|]. cbn in *. apply andb_true_iff in M as [S M]. apply andb_true_iff. split.
      * destruct s as [|g]; [reflexivity|]. cbn in *. rewrite S in Ps. discriminate.
      * exact (IH tree [] below P M).
    + cbn in *. apply andb_true_iff in M as [S M]. rewrite S. exact (IH tree p below P M).
Qed.

(** Beyond the depth of a pattern, one more name makes no difference. *)
Lemma deep_tree : forall head tree p q, (length head < length p)%nat -> matches_from head tree p = true ->
  matches_from head tree (p ++ q) = true.
Proof.
  induction head as [|s head IH]; intros tree [|c p] q L M; cbn [length] in L; try lia.
  - exact M.
  - cbn in *. apply andb_true_iff in M as [S M]. rewrite S. apply IH; [lia | exact M].
Qed.

Lemma exact_depth : forall head p, matches_from head false p = true -> length p = length head.
Proof.
  induction head as [|s head IH]; intros [|c p] M; cbn in *; try discriminate; [reflexivity|].
  apply andb_true_iff in M as [_ M]. f_equal. apply IH. exact M.
Qed.

Lemma list_max_in : forall x l, In x l -> (x <= list_max l)%nat.
Proof. intros x l H. assert (F := proj1 (list_max_le l (list_max l)) (le_n _)). rewrite Forall_forall in F. auto. Qed.

Lemma all_below_spec : forall gs p, forallb plain_pattern gs = true ->
  all_below gs p = true <-> forall below, existsb (fun g => matches g (p ++ below)) gs = true.
Proof.
  intros gs p P. rewrite forallb_forall in P. unfold all_below. rewrite forallb_forall. split.
  - intros H below. set (most := (list_max (map depth gs) - length p + 2)%nat) in *.
    destruct (Nat.lt_ge_cases (length below) most) as [L|L].
    + assert (I : In (length below) (seq 0 most)) by (apply in_seq; lia).
      specialize (H _ I). apply existsb_exists in H as (g & Hg & M). apply existsb_exists. exists g. split; [exact Hg|].
      destruct g as [head tree]. apply nobody_all; [apply P; exact Hg | exact M].
    + (* longer than any pattern: some pattern with ** matches *)
      assert (I : In (most - 1)%nat (seq 0 most)) by (apply in_seq; unfold most; lia).
      specialize (H _ I). apply existsb_exists in H as (g & Hg & M). apply existsb_exists. exists g. split; [exact Hg|].
      assert (D : (depth g <= list_max (map depth gs))%nat) by (apply list_max_in, in_map; exact Hg).
      destruct g as [head tree]. unfold matches, depth in *. cbn [fst snd] in *.
      rewrite <- (firstn_skipn (most - 1) below), app_assoc. apply deep_tree.
      * rewrite app_length, firstn_length. unfold most in *. lia.
      * apply nobody_all; [exact (P _ Hg)|]. rewrite firstn_length. replace (Nat.min (most - 1) (length below)) with (most - 1)%nat by lia.
        exact M.
  - intros H n _. apply H.
Qed.

Lemma shapes_extend : forall p s w b, shapes p s (extend w b) = shapes p s w.
Proof. reflexivity. Qed.

Lemma named_shapes : forall p s w,
  some_named (resource_sets p) (names s) (fun gs => some_matches gs w) = existsb (fun g => matches g (path w)) (shapes p s w).
Proof.
  intros. apply iff_bool. unfold some_named, shapes, some_matches. rewrite !existsb_exists. split.
  - intros ([n gs] & Hs & H). cbn [fst snd] in H. apply andb_true_iff in H as [Hn H].
    apply existsb_exists in H as (g & Hg & H). apply andb_true_iff in H as [Hh H]. exists (shape g). split; [|exact H].
    apply in_map, filter_In. split; [|exact Hh]. apply in_flat_map. exists (n, gs). split; [|exact Hg].
    apply filter_In. auto.
  - intros (x & Hx & M). apply in_map_iff in Hx as (g & <- & Hg). apply filter_In in Hg as [Hg Hh].
    apply in_flat_map in Hg as ([n gs] & Hs & Hg). apply filter_In in Hs as [Hs Hn]. exists (n, gs). split; [exact Hs|].
    cbn [fst snd] in *. rewrite Hn. apply existsb_exists. exists g. split; [exact Hg|]. rewrite Hh. exact M.
Qed.

Definition plain_policy (p : policy) : bool :=
  forallb (fun s => forallb (fun g => plain_pattern (shape g)) (snd s)) (resource_sets p)
  && forallb (fun g => plain_pattern (shape g)) (protected p)
  && forallb (fun s => match executables (snd s) with None => true | Some gs => forallb (fun g => plain_pattern (shape g)) gs end)
             (subject_sets p)
  && forallb (fun s => match services (snd s) with
                       | None => true
                       | Some us => forallb (forallb (forallb (fun b => negb (b =? star)))) us end)
             (subject_sets p)
  && forallb (fun s => match services (snd s) with
                       | None => true
                       | Some us => forallb (fun u => plain_pattern (map Glob u, true)) us end) (subject_sets p).

Lemma plain_shapes : forall p s w, plain_policy p = true -> forallb plain_pattern (shapes p s w) = true.
Proof.
  intros p s w P. unfold plain_policy in P. rewrite !andb_true_iff in P. destruct P as ((((P & _) & _) & _) & _).
  rewrite forallb_forall in *. intros x Hx. unfold shapes in Hx. apply in_map_iff in Hx as (g & <- & Hg).
  apply filter_In in Hg as [Hg _]. apply in_flat_map in Hg as (set & Hs & Hg). apply filter_In in Hs as [Hs _].
  specialize (P _ Hs). rewrite forallb_forall in P. exact (P _ Hg).
Qed.

Theorem reaches_means : forall p w r, plain_policy p = true ->
  reaches p w r = true <-> exists below, covers_file p (extend w below) r = true.
Proof.
  intros p w r P. unfold reaches, covers_file, selected. destruct (resources r) as [s|]; [|split; [discriminate | intros (b & H); discriminate H]].
  destruct (negated s) eqn:N.
  - rewrite negb_true_iff, <- not_true_iff_false, all_below_spec by (apply plain_shapes; exact P). split.
    + intros H. destruct (all_below (shapes p s w) (path w)) eqn:A.
      * exfalso. apply H. apply all_below_spec; [apply plain_shapes; exact P | exact A].
      * unfold all_below in A.
        assert (E : exists n, existsb (fun g => matches g (path w ++ repeat nobody n)) (shapes p s w) = false).
        { clear H. induction (seq 0 _) as [|n l IH]; [discriminate|]. cbn in A. apply andb_false_iff in A as [A|A]; eauto. }
        destruct E as (n & E). exists (repeat nobody n). rewrite named_shapes, shapes_extend. cbn [extend path]. rewrite E. reflexivity.
    + intros (b & H) A. specialize (A b). rewrite named_shapes, shapes_extend in H. cbn [extend path] in H. rewrite A in H. discriminate.
  - rewrite some_below_spec. split; intros (b & H); exists b; rewrite named_shapes, shapes_extend in *; cbn [extend path] in *;
      rewrite xorb_false_r in *; exact H.
Qed.

Theorem pervades_means : forall p w r, plain_policy p = true -> resources r <> None ->
  pervades p w r = true <-> forall below, covers_file p (extend w below) r = true.
Proof.
  intros p w r P R. unfold pervades, covers_file, selected. destruct (resources r) as [s|]; [|congruence].
  destruct (negated s) eqn:N.
  - rewrite negb_true_iff, <- not_true_iff_false, some_below_spec. split.
    + intros H b. rewrite named_shapes, shapes_extend. cbn [extend path].
      destruct (existsb _ (shapes p s w)) eqn:E; [exfalso; apply H; exists b; exact E | reflexivity].
    + intros H (b & E). specialize (H b). rewrite named_shapes, shapes_extend in H. cbn [extend path] in H. rewrite E in H. discriminate.
  - rewrite all_below_spec by (apply plain_shapes; exact P).
    split; intros H b; specialize (H b); rewrite named_shapes, shapes_extend, xorb_false_r in *; exact H.
Qed.

(** * The tables *)

Section Below.
  Variable t : list (node nat).

  Definition pass (join : N -> N -> N) (v : list N) : list N :=
    map (fun i => match nth_error t i with
                  | Some n => fold_right (fun j m => join (nth j v 0) m) (nth i v 0) (succs n)
                  | None => 0
                  end) (seq 0 (length t)).

  (** Until nothing changes. *)
  Fixpoint settle (join : N -> N -> N) (fuel : nat) (v : list N) : option (list N) :=
    match fuel with
    | O => None
    | S fuel' => let v' := pass join v in if list_eq_dec N.eq_dec v v' then Some v else settle join fuel' v'
    end.

  Inductive reach : nat -> nat -> Prop :=
  | stay : forall i, reach i i
  | go : forall i j k n, nth_error t i = Some n -> In j (succs n) -> reach j k -> reach i k.

  Lemma nth_pass : forall join v i n, nth_error t i = Some n ->
    nth i (pass join v) 0 = fold_right (fun j m => join (nth j v 0) m) (nth i v 0) (succs n).
  Proof.
    intros join v i n H. unfold pass.
    assert (L : (i < length t)%nat) by (apply nth_error_Some; congruence).
    erewrite nth_indep by (rewrite map_length, seq_length; exact L).
    rewrite map_nth with (d := O), seq_nth by exact L. cbn. rewrite H. reflexivity.
  Qed.

  Lemma nth_pass_none : forall join v i, nth_error t i = None -> nth i (pass join v) 0 = 0.
  Proof.
    intros join v i H. apply nth_error_None in H. apply nth_overflow. unfold pass. rewrite map_length, seq_length. exact H.
  Qed.

  Lemma fold_lor : forall (f : nat -> N) l start i,
    (fold_right (fun j m => N.lor (f j) m) start l).[i] = true <-> start.[i] = true \/ exists j, In j l /\ (f j).[i] = true.
  Proof.
    induction l as [|x l IH]; intros start i; cbn [fold_right].
    - split; [auto | intros [H|(j & [] & _)]; exact H].
    - rewrite lor_bit, orb_true_iff, IH. split.
      + intros [H|[H|(j & Hj & H)]]; [right; exists x; cbn; auto | auto | right; exists j; cbn; auto].
      + intros [H|(j & [<-|Hj] & H)]; eauto.
  Qed.

  Lemma fold_land : forall (f : nat -> N) l start i,
    (fold_right (fun j m => N.land (f j) m) start l).[i] = true <-> start.[i] = true /\ forall j, In j l -> (f j).[i] = true.
  Proof.
    induction l as [|x l IH]; intros start i; cbn [fold_right].
    - split; [intros H; split; [exact H | intros j []] | intros [H _]; exact H].
    - rewrite land_bit, andb_true_iff, IH. split.
      + intros (Hx & Hs & H). split; [exact Hs|]. intros j [<-|Hj]; auto.
      + intros (Hs & H). cbn in H. auto.
  Qed.

  Theorem some_spec : forall fuel covers v, length covers = length t -> settle N.lor fuel covers = Some v ->
    forall i b, (nth i v 0).[b] = true <-> exists j, reach i j /\ (nth j covers 0).[b] = true.
  Proof.
    intros fuel covers v L E.
    assert (G : forall fuel v0, settle N.lor fuel v0 = Some v ->
      (forall i b, (nth i covers 0).[b] = true -> (nth i v0 0).[b] = true) ->
      (forall i b, (nth i v0 0).[b] = true -> exists j, reach i j /\ (nth j covers 0).[b] = true) ->
      (forall i b, (nth i covers 0).[b] = true -> (nth i v 0).[b] = true)
      /\ (forall i b, (nth i v 0).[b] = true -> exists j, reach i j /\ (nth j covers 0).[b] = true)
      /\ v = pass N.lor v).
    { clear fuel E. induction fuel as [|fuel IH]; intros v0 E Low High; cbn [settle] in E; [discriminate|].
      destruct (list_eq_dec N.eq_dec v0 (pass N.lor v0)) as [Q|Q].
      - injection E as <-. auto.
      - apply (IH _ E).
        + intros i b H. destruct (nth_error t i) as [n|] eqn:T.
          * rewrite (nth_pass _ _ _ _ T). apply fold_lor. left. apply Low. exact H.
          * apply nth_error_None in T. rewrite nth_overflow, zero_bit in H by lia. discriminate.
        + intros i b H. destruct (nth_error t i) as [n|] eqn:T.
          * rewrite (nth_pass _ _ _ _ T) in H. apply fold_lor in H as [H|(k & Hk & H)]; [auto|].
            destruct (High _ _ H) as (j & R & C). exists j. split; [exact (go _ _ _ _ T Hk R) | exact C].
          * rewrite nth_pass_none, zero_bit in H by exact T. discriminate. }
    destruct (G _ _ E) as (Low & High & Stable); [auto | intros i b H; exists i; split; [apply stay | exact H]|].
    intros i b. split; [apply High|]. intros (j & R & C). induction R as [i|i k j n T K R IH].
    - apply Low. exact C.
    - rewrite Stable, (nth_pass _ _ _ _ T). apply fold_lor. right. exists k. auto.
  Qed.

  Theorem every_spec : forall fuel covers v, length covers = length t -> settle N.land fuel covers = Some v ->
    forall i b, (nth i v 0).[b] = true <-> forall j, reach i j -> (nth j covers 0).[b] = true.
  Proof.
    intros fuel covers v L E.
    assert (G : forall fuel v0, settle N.land fuel v0 = Some v ->
      (forall i b, (nth i v0 0).[b] = true -> (nth i covers 0).[b] = true) ->
      (forall i b, (forall j, reach i j -> (nth j covers 0).[b] = true) -> (nth i v0 0).[b] = true) ->
      (forall i b, (nth i v 0).[b] = true -> (nth i covers 0).[b] = true)
      /\ (forall i b, (forall j, reach i j -> (nth j covers 0).[b] = true) -> (nth i v 0).[b] = true)
      /\ v = pass N.land v).
    { clear fuel E. induction fuel as [|fuel IH]; intros v0 E Low High; cbn [settle] in E; [discriminate|].
      destruct (list_eq_dec N.eq_dec v0 (pass N.land v0)) as [Q|Q].
      - injection E as <-. auto.
      - apply (IH _ E).
        + intros i b H. destruct (nth_error t i) as [n|] eqn:T.
          * rewrite (nth_pass _ _ _ _ T) in H. apply fold_land in H as [H _]. auto.
          * rewrite nth_pass_none, zero_bit in H by exact T. discriminate.
        + intros i b H. destruct (nth_error t i) as [n|] eqn:T.
          * rewrite (nth_pass _ _ _ _ T). apply fold_land. split; [auto|]. intros k Hk. apply High. intros j R. apply H.
            exact (go _ _ _ _ T Hk R).
          * specialize (H i (stay i)). apply nth_error_None in T. rewrite nth_overflow, zero_bit in H by lia. discriminate. }
    destruct (G _ _ E) as (Low & High & Stable); [auto | intros i b H; apply H, stay|].
    intros i b. split; [|apply High]. intros V j R. induction R as [i|i k j n T K R IH].
    - apply Low. exact V.
    - apply IH. rewrite Stable, (nth_pass _ _ _ _ T) in V. apply fold_land in V as [_ V]. auto.
  Qed.
End Below.

(** Each state that can be reached from a state is reached by some path. *)
Section Paths.
  Variables (fuel : nat) (roots : list items) (t : list (node nat)) (ns : list nat).
  Hypothesis built : build fuel roots = Some (t, ns).
  Notation stands := (stands fuel roots).

  Lemma step_dead : forall c, step t 0 c = O.
  Proof.
    intros c. destruct (parts _ _ _ _ built) as (all & O & _ & (more & M) & _ & Nodes).
    assert (H : nth_error all 0 = Some []) by (rewrite M; reflexivity).
    destruct (Nodes _ _ H) as (n & E & T). unfold step. rewrite T, step_map, (expand_step _ _ _ _ E).
    change (derive [] c) with (@nil (pattern * N)). rewrite M. reflexivity.
  Qed.

  Lemma walk_dead : forall p, walk t 0 p = O.
  Proof. destruct p; reflexivity. Qed.

  Lemma walk_cons : forall n c p, walk t n (c :: p) = walk t (step t n c) p.
  Proof. intros [|n] c p; [rewrite step_dead, !walk_dead; reflexivity | reflexivity]. Qed.

  Lemma walk_app : forall p q n, walk t n (p ++ q) = walk t (walk t n p) q.
  Proof.
    induction p as [|c p IH]; intros q n; [reflexivity|]. cbn [app]. rewrite !walk_cons. apply IH.
  Qed.

  Lemma reach_walk : forall n s, stands n s -> plain_items s -> forall m, reach t n m <-> exists p, walk t n p = m.
  Proof.
    intros n s H P m. split.
    - intros R. revert s H P. induction R as [i|i j k x T J R IH]; intros s H P; [exists []; reflexivity|].
      destruct (stands_node _ _ _ _ built _ _ H) as (y & Ty & _ & S & C). rewrite T in Ty. injection Ty as <-.
      destruct (C _ J P) as (c & <-). destruct (IH (derive s c)) as (p & Hp); [apply S | apply plain_after; exact P|].
      exists (c :: p). rewrite walk_cons. exact Hp.
    - intros (p & <-). revert n s H P. induction p as [|c p IH]; intros n s H P; [apply stay|]. rewrite walk_cons.
      destruct (stands_node _ _ _ _ built _ _ H) as (x & T & _ & S & _).
      apply (go t n (step t n c) _ x T).
      + unfold step. rewrite T. apply succs_step.
      + apply (IH _ (derive s c)); [apply S | apply plain_after; exact P].
  Qed.
End Paths.
