(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** Properties of the meaning alone. *)

From Coq Require Import NArith List Bool Lia Arith Permutation.
From Guard Require Import Meaning Correct.
Import ListNotations.
Open Scope N_scope.

Definition severity_of (o : outcome) : nat := match o with Allow => 0 | Audit => 1 | Deny => 2 end.
Definition severity (v : verdict) : nat := severity_of (result v).

(** Policy [q] has every rule of [p], and the sets that these rules name have the same members in both. *)
Definition agree {S} (ns : list N) (a b : list (N * S)) := forall n s, In n ns -> In (n, s) a <-> In (n, s) b.
Definition rule_subjects (r : rule) := match subjects r with None => [] | Some ns => ns end ++ excepts r.
Definition selection_names (s : option selection) := match s with None => [] | Some q => names q end.

Record within (p q : policy) : Prop := Within {
  same_superblocks : superblocks p = superblocks q;
  same_protected : forall g, In g (protected p) <-> In g (protected q);
  rules_kept : incl (rules p) (rules q);
  subjects_agree : forall r, In r (rules p) -> agree (rule_subjects r) (subject_sets p) (subject_sets q);
  resources_agree : forall r, In r (rules p) -> agree (selection_names (resources r)) (resource_sets p) (resource_sets q);
  destinations_agree : forall r, In r (rules p) ->
    agree (selection_names (destinations r)) (destination_sets p) (destination_sets q) }.

Lemma some_named_agree : forall S (a b : list (N * S)) ns hold, agree ns a b -> some_named a ns hold = some_named b ns hold.
Proof.
  intros S a b ns hold A. unfold some_named. apply Vectors.iff_bool. rewrite !existsb_exists.
  split; intros ([n s] & H & E); exists (n, s); (split; [|exact E]); cbn [fst snd] in E; apply andb_true_iff in E as [M _];
    apply mem_spec in M; apply (A n s M); exact H.
Qed.

Lemma agree_incl : forall S ns ms (a b : list (N * S)), incl ms ns -> agree ns a b -> agree ms a b.
Proof. intros S ns ms a b I A n s H. apply A, I, H. Qed.

Lemma existsb_same : forall A (f : A -> bool) l m, (forall x, In x l <-> In x m) -> existsb f l = existsb f m.
Proof.
  intros A f l m H. apply Vectors.iff_bool. rewrite !existsb_exists. split; intros (x & Hx & E); exists x; split; auto; apply H, Hx.
Qed.

Lemma list_max_same : forall l m, (forall x, In x l <-> In x m) -> list_max l = list_max m.
Proof.
  intros l m H. apply Nat.le_antisymm; apply list_max_le; apply Forall_forall; intros x Hx; apply Below.list_max_in, H, Hx.
Qed.

Section Within.
  Variables (p q : policy) (r : rule).
  Hypothesis W : within p q.
  Hypothesis R : In r (rules p).

  Lemma trouble_within : forall w, trouble_at p w = trouble_at q w.
  Proof. intros w. unfold trouble_at. rewrite (same_superblocks _ _ W). reflexivity. Qed.

  Lemma known_within : forall t, known p t = known q t.
  Proof. intros t. unfold known. destruct (executable t) as [w|]; [rewrite trouble_within|]; reflexivity. Qed.

  Lemma binds_within : forall t, binds p t r = binds q t r.
  Proof.
    intros t. unfold binds. pose proof (subjects_agree _ _ W _ R) as A. unfold rule_subjects in A. destruct (subjects r) as [ns|]; [|reflexivity].
    rewrite (some_named_agree _ (subject_sets p) (subject_sets q));
      [|exact (agree_incl _ _ _ _ _ (incl_appl _ (incl_refl _)) A)].
    unfold some_named. apply Vectors.iff_bool. rewrite !existsb_exists. unfold may_be.
    split; intros (s & H & E); exists s; (split; [exact H|]); rewrite known_within in *; exact E.
  Qed.

  Lemma excepted_within : forall t, excepted p t r = excepted q t r.
  Proof.
    intros t. unfold excepted. pose proof (subjects_agree _ _ W _ R) as A. unfold rule_subjects in A.
    rewrite (some_named_agree _ (subject_sets p) (subject_sets q)); [|exact (agree_incl _ _ _ _ _ (incl_appr _ (incl_refl _)) A)].
    unfold some_named. apply Vectors.iff_bool. rewrite !existsb_exists. unfold surely_is.
    split; intros (s & H & E); exists s; (split; [exact H|]); rewrite known_within in *; exact E.
  Qed.

  Lemma file_within : forall w, covers_file p w r = covers_file q w r.
  Proof.
    intros w. unfold covers_file, selected. pose proof (resources_agree _ _ W _ R) as A.
    destruct (resources r) as [s|]; [|reflexivity]. rewrite (some_named_agree _ _ (resource_sets q)); [reflexivity | exact A].
  Qed.

  Lemma shapes_within : forall s w x, resources r = Some s -> In x (shapes p s w) <-> In x (shapes q s w).
  Proof.
    intros s w x E. pose proof (resources_agree _ _ W _ R) as A. rewrite E in A. cbn in A.
    assert (H : forall a b, agree (names s) (resource_sets a) (resource_sets b) -> In x (shapes a s w) -> In x (shapes b s w)).
    { intros a b G H. unfold shapes in *. apply in_map_iff in H as (g & <- & H). apply filter_In in H as [H D].
      apply in_flat_map in H as ([n gs] & H & Hg). apply filter_In in H as [H M]. cbn [fst snd] in *.
      apply in_map, filter_In. split; [|exact D]. apply in_flat_map. exists (n, gs). split; [|exact Hg].
      apply filter_In. split; [|exact M]. apply (G n gs); [apply mem_spec; exact M | exact H]. }
    split; apply H; [exact A|]. intros n gs M. symmetry. apply A. exact M.
  Qed.

  Lemma some_within : forall s w, resources r = Some s -> some_below (shapes p s w) (path w) = some_below (shapes q s w) (path w).
  Proof. intros s w E. apply existsb_same. intros x. apply shapes_within. exact E. Qed.

  Lemma all_within : forall s w, resources r = Some s -> all_below (shapes p s w) (path w) = all_below (shapes q s w) (path w).
  Proof.
    intros s w E. unfold all_below. pose proof (fun x => shapes_within s w x E) as H.
    rewrite (list_max_same (map depth (shapes p s w)) (map depth (shapes q s w))).
    - apply Vectors.iff_bool. rewrite !forallb_forall. split; intros F n Hn; specialize (F n Hn);
        [rewrite <- (existsb_same _ _ _ _ H) | rewrite (existsb_same _ _ _ _ H)]; exact F.
    - intros x. rewrite !in_map_iff. split; intros (g & <- & Hg); exists g; split; auto; apply H, Hg.
  Qed.

  Lemma alias_within : forall a b d, covers_alias p a b d r = covers_alias q a b d r.
  Proof.
    intros a b d. unfold covers_alias. destruct d.
    - assert (E : forall w, reaches p w r = reaches q w r /\ pervades p w r = pervades q w r).
      { intros w. unfold reaches, pervades. destruct (resources r) as [s|] eqn:S; [|auto].
        rewrite (some_within s w S), (all_within s w S). auto. }
      destruct (E a) as [-> ->], (E b) as [-> ->]. reflexivity.
    - rewrite !file_within. reflexivity.
  Qed.

  Lemma covers_within : forall e, covers p e r = covers q e r.
  Proof.
    pose proof (destinations_agree _ _ W _ R) as A.
    destruct e as [action w|a b d|action to port protocol trouble|cid port|action|root at_ below]; cbn [covers]; try reflexivity.
    - apply file_within.
    - apply alias_within.
    - unfold covers_endpoint, selected. destruct (destinations r) as [s|]; [|reflexivity].
      rewrite (some_named_agree _ _ (destination_sets q)); [reflexivity | exact A].
    - unfold covers_vsock, selected. destruct (destinations r) as [s|]; [|reflexivity].
      rewrite (some_named_agree _ _ (destination_sets q)); [reflexivity | exact A].
  Qed.

  Lemma troubled_within : forall e, trouble_of p e = trouble_of q e.
  Proof. destruct e; cbn [trouble_of]; rewrite ?trouble_within; reflexivity. Qed.

  Lemma hit_within : forall today t e, hit p today t e r = hit q today t e r.
  Proof. intros. unfold hit. rewrite binds_within, excepted_within, troubled_within, covers_within. reflexivity. Qed.

  Lemma named_hit_within : forall today t, named_hit p today t r = named_hit q today t r.
  Proof. intros. unfold named_hit. rewrite binds_within, excepted_within. reflexivity. Qed.

  Lemma asks_within : asks_for_labels p r = asks_for_labels q r.
  Proof.
    unfold asks_for_labels. pose proof (subjects_agree _ _ W _ R) as A. unfold rule_subjects in A.
    destruct (subjects r) as [ns|]; [|reflexivity]. apply some_named_agree.
    exact (agree_incl _ _ _ _ _ (incl_appl _ (incl_refl _)) A).
  Qed.
End Within.

Lemma protected_within : forall p q w below, within p q -> is_protected p w below = is_protected q w below.
Proof.
  intros p q w below W. unfold is_protected. rewrite (trouble_within p q W).
  destruct (trouble_at q w); [reflexivity|].
  assert (H : forall g, In g (map shape (filter (here w) (protected p))) <-> In g (map shape (filter (here w) (protected q)))).
  { intros g. rewrite !in_map_iff. split; intros (x & <- & Hx); exists x; (split; [reflexivity|]); apply filter_In in Hx as [Hx D];
      apply filter_In; (split; [apply (same_protected _ _ W); exact Hx | exact D]). }
  destruct below; apply existsb_same; exact H.
Qed.

Lemma kept_hits : forall p q today t e, within p q ->
  incl (filter (hit p today t e) (rules p)) (filter (hit q today t e) (rules q)).
Proof.
  intros p q today t e W r H. apply filter_In in H as [H E]. apply filter_In. split; [apply (rules_kept _ _ W); exact H|].
  rewrite <- (hit_within p q r W H). exact E.
Qed.

Lemma kept_named_hits : forall p q today t, within p q ->
  incl (filter (named_hit p today t) (rules p)) (filter (named_hit q today t) (rules q)).
Proof.
  intros p q today t W r H. apply filter_In in H as [H E]. apply filter_In. split; [apply (rules_kept _ _ W); exact H|].
  rewrite <- (named_hit_within p q r W H). exact E.
Qed.

Lemma some_first : forall l m n, incl l m -> first l = Some n -> exists n', first m = Some n'.
Proof.
  intros l m n I E. destruct (first m) as [n'|] eqn:F; [eauto|]. exfalso. apply first_none in F. subst.
  apply first_spec in E as [(r & Hr & _) _]. exact (I _ Hr).
Qed.

Lemma enforcing_incl : forall l m, incl l m -> incl (enforcing l) (enforcing m).
Proof. intros l m I r H. apply filter_In in H as [H E]. apply filter_In. split; [apply I; exact H | exact E]. Qed.

(** * Adding a rule never allows anything *)

Lemma more_rules_never_allow_by_rule : forall p q today t e, within p q -> ruled e ->
  (severity (decide p today t e) <= severity (decide q today t e))%nat.
Proof.
  intros p q today t e W Re. pose proof (kept_hits p q today t e W) as I. pose proof (enforcing_incl _ _ I) as J.
  assert (D : forall x, decide x today t e =
    match first (enforcing (filter (hit x today t e) (rules x))), first (filter (hit x today t e) (rules x)) with
    | Some n, _ => Verdict Deny (Some n) (match trouble_of x e with Some r => r | None => BY_RULE end)
    | None, Some n => Verdict Meaning.Audit (Some n) (match trouble_of x e with Some r => r | None => BY_RULE end)
    | None, None => allowed end) by (intros x; destruct e; try destruct Re; reflexivity).
  rewrite !D. destruct (first (enforcing (filter (hit p today t e) (rules p)))) as [n|] eqn:E1.
  - destruct (some_first _ _ _ J E1) as (n' & ->). cbn. lia.
  - destruct (first (filter (hit p today t e) (rules p))) as [n|] eqn:E2; [|cbn; lia].
    destruct (some_first _ _ _ I E2) as (n' & ->). destruct (first (enforcing (filter (hit q today t e) (rules q)))); cbn; lia.
Qed.

Lemma stricter_max : forall a b, severity_of (stricter a b) = Nat.max (severity_of a) (severity_of b).
Proof. intros [] []; reflexivity. Qed.

Lemma labels_deny_within : forall p q today, within p q -> labels_deny p today = true -> labels_deny q today = true.
Proof.
  intros p q today W H. unfold labels_deny in *. apply existsb_exists in H as (r & R & E). apply existsb_exists. exists r.
  split; [apply (rules_kept _ _ W); exact R|]. rewrite <- (asks_within p q r W R). exact E.
Qed.

(** Modifying the enforcer, denied by a rule or by a label alone. *)
Theorem more_rules_never_allow_tampering : forall p q today t root at_ below, within p q ->
  (severity (decide p today t (Tamper root at_ below)) <= severity (decide q today t (Tamper root at_ below)))%nat.
Proof.
  intros p q today t root at_ below W. cbn [decide]. unfold tampering.
  pose proof (kept_named_hits p q today t W) as I. pose proof (enforcing_incl _ _ I) as J.
  replace (match at_ with None => true | Some w => is_protected p w below end)
    with (match at_ with None => true | Some w => is_protected q w below end)
    by (destruct at_ as [w|]; [rewrite (protected_within p q w below W)|]; reflexivity).
  destruct (match at_ with None => true | Some w => is_protected q w below end); [|cbn; lia].
  assert (L : (severity_of (said_by_label (labels_deny p today) t) <= severity_of (said_by_label (labels_deny q today) t))%nat).
  { unfold said_by_label. pose proof (labels_deny_within p q today W) as D. destruct (labels t); [cbn; lia|].
    destruct (labels_deny p today); [rewrite D by reflexivity; cbn; lia|]. destruct (labels_deny q today); cbn; lia. }
  assert (V : forall o n, severity (touched o n) = severity_of o) by (intros [] n; reflexivity).
  set (rules_p := match first (enforcing (filter (named_hit p today t) (rules p))) with Some n => _ | None => _ end).
  set (rules_q := match first (enforcing (filter (named_hit q today t) (rules q))) with Some n => _ | None => _ end).
  assert (R : (severity_of (fst rules_p) <= severity_of (fst rules_q))%nat).
  { subst rules_p rules_q. destruct (first (enforcing (filter (named_hit p today t) (rules p)))) as [n|] eqn:E1.
    - destruct (some_first _ _ _ J E1) as (n' & ->). cbn. lia.
    - destruct (first (filter (named_hit p today t) (rules p))) as [n|] eqn:E2; [|cbn; lia].
      destruct (some_first _ _ _ I E2) as (n' & ->).
      destruct (first (enforcing (filter (named_hit q today t) (rules q)))); cbn; lia. }
  destruct rules_p as [o n], rules_q as [o' n']. cbn [fst] in R. rewrite !V, !stricter_max. lia.
Qed.

Theorem more_rules_never_allow : forall p q today t e, within p q ->
  (severity (decide p today t e) <= severity (decide q today t e))%nat.
Proof.
  intros p q today t e W. destruct e; try (apply more_rules_never_allow_by_rule; [exact W | exact I]).
  apply more_rules_never_allow_tampering. exact W.
Qed.

Definition add (r : rule) (p : policy) : policy :=
  Policy (r :: rules p) (subject_sets p) (resource_sets p) (destination_sets p) (superblocks p) (protected p).

Lemma within_add : forall p r, within p (add r p).
Proof. intros p r. constructor; cbn; try reflexivity; try (intros ? ? ? ? ?; reflexivity). intros x H. right. exact H. Qed.

Theorem a_rule_more_never_allows : forall p r today t e,
  (severity (decide p today t e) <= severity (decide (add r p) today t e))%nat.
Proof. intros p r today t e. apply more_rules_never_allow, within_add. Qed.

(** * Adding an audit rule never removes a denial, and denies nothing *)

Theorem a_report_never_weakens : forall p r today t e, audit r = true ->
  result (decide p today t e) = Deny -> result (decide (add r p) today t e) = Deny.
Proof.
  intros p r today t e _ D. pose proof (a_rule_more_never_allows p r today t e) as H. unfold severity in H. rewrite D in H.
  destruct (result (decide (add r p) today t e)); cbn in H; [lia | lia | reflexivity].
Qed.

(** Modifying the enforcer without being root in the initial user namespace is denied under any policy. *)
Theorem reports_never_deny : forall p today t e, (forall r, In r (rules p) -> audit r = true) ->
  match e with Tamper root _ _ => root = true | _ => True end -> result (decide p today t e) <> Deny.
Proof.
  intros p today t e H C.
  assert (N : forall f, enforcing (filter f (rules p)) = []).
  { intros f. destruct (enforcing (filter f (rules p))) as [|r l] eqn:E; [reflexivity|]. exfalso.
    assert (X : In r (enforcing (filter f (rules p)))) by (rewrite E; left; reflexivity).
    apply filter_In in X as [X A]. apply filter_In in X as [X _]. rewrite (H r X) in A. discriminate. }
  assert (D : labels_deny p today = false).
  { unfold labels_deny. apply not_true_iff_false. rewrite existsb_exists. intros (r & R & E).
    rewrite (H r R), andb_false_r in E. discriminate. }
  destruct e; cbn [decide]; rewrite ?N; cbn [first]; try (destruct (first _); discriminate).
  unfold tampering. rewrite N, D, C. cbn [first]. unfold said_by_label.
  destruct (match at_ with None => true | Some w => is_protected p w below end); [|discriminate].
  destruct (labels t), (first (filter (named_hit p today t) (rules p))); discriminate.
Qed.

(** * Order is irrelevant *)

Theorem within_both : forall p q today t e, within p q -> within q p -> decide p today t e = decide q today t e.
Proof.
  intros p q today t e W W'.
  assert (S : forall r, In r (filter (hit p today t e) (rules p)) <-> In r (filter (hit q today t e) (rules q)))
    by (intros r; split; apply kept_hits; assumption).
  assert (N : forall r, In r (filter (named_hit p today t) (rules p)) <-> In r (filter (named_hit q today t) (rules q)))
    by (intros r; split; apply kept_named_hits; assumption).
  assert (F : forall l m, (forall r : rule, In r l <-> In r m) -> first l = first m /\ first (enforcing l) = first (enforcing m)).
  { intros l m H. split; apply first_same; [exact H|]. intros r. unfold enforcing. rewrite !filter_In, H. reflexivity. }
  destruct (F _ _ S) as [S1 S2]. destruct (F _ _ N) as [N1 N2].
  assert (T : trouble_of p e = trouble_of q e) by (destruct e; cbn [trouble_of]; rewrite ?(trouble_within p q W); reflexivity).
  destruct e; cbn [decide]; rewrite ?S1, ?S2, ?T; try reflexivity.
  assert (D : labels_deny p today = labels_deny q today)
    by (apply Vectors.iff_bool; split; apply labels_deny_within; assumption).
  unfold tampering. rewrite N1, N2, D. destruct at_ as [w|]; [rewrite (protected_within p q w below W)|]; reflexivity.
Qed.

Definition same {A} (a b : list A) := forall x, In x a <-> In x b.

Lemma within_same : forall p q, superblocks p = superblocks q -> same (protected p) (protected q) -> same (rules p) (rules q) ->
  same (subject_sets p) (subject_sets q) -> same (resource_sets p) (resource_sets q) ->
  same (destination_sets p) (destination_sets q) -> within p q.
Proof.
  intros p q S P R A B C. constructor; auto.
  - intros r H. apply R. exact H.
  - intros r _ n s _. apply A.
  - intros r _ n s _. apply B.
  - intros r _ n s _. apply C.
Qed.

Theorem order_of_rules : forall p q today t e, Permutation (rules p) (rules q) ->
  q = Policy (rules q) (subject_sets p) (resource_sets p) (destination_sets p) (superblocks p) (protected p) ->
  decide p today t e = decide q today t e.
Proof.
  intros p q today t e H E.
  assert (X : same (rules p) (rules q)) by (intros r; split; apply Permutation_in; [exact H | symmetry; exact H]).
  rewrite E. apply within_both; apply within_same; cbn; try reflexivity; try (intros x; reflexivity); try exact X.
  intros x. symmetry. apply X.
Qed.

(** * Fragments: plugins/plugin_utils/_language/merge.py *)

(** What the host adds: the known filesystems, and the enforcer's files. *)
Definition merge (host : list N * list placed) (fs : list policy) : policy :=
  Policy (flat_map rules fs) (flat_map subject_sets fs) (flat_map resource_sets fs) (flat_map destination_sets fs)
         (fst host) (snd host).

Theorem order_of_fragments : forall host fs gs today t e, Permutation fs gs ->
  decide (merge host fs) today t e = decide (merge host gs) today t e.
Proof.
  intros host fs gs today t e H.
  assert (X : forall A (f : policy -> list A), same (flat_map f fs) (flat_map f gs)).
  { intros A f x. rewrite !in_flat_map. split; intros (y & Hy & Hx); exists y; (split; [|exact Hx]);
      [apply (Permutation_in _ H) | apply (Permutation_in _ (Permutation_sym H))]; exact Hy. }
  assert (Y : forall A (f : policy -> list A), same (flat_map f gs) (flat_map f fs)) by (intros A f x; symmetry; apply X).
  apply within_both; apply within_same; cbn; try reflexivity; try (intros x; reflexivity); try apply X; apply Y.
Qed.

(** Sets with the same name are equal: no fragment changes a set that a rule of [f] names. *)
Definition keeps {S} (sets : policy -> list (N * S)) (named_ : rule -> list N) (f : policy) (fs : list policy) :=
  forall r g n s, In r (rules f) -> In g fs -> In n (named_ r) -> In (n, s) (sets g) -> In (n, s) (sets f).

Theorem merge_denies : forall host f fs today t e, In f fs ->
  keeps subject_sets rule_subjects f fs -> keeps resource_sets (fun r => selection_names (resources r)) f fs ->
  keeps destination_sets (fun r => selection_names (destinations r)) f fs ->
  (severity (decide (merge host [f]) today t e) <= severity (decide (merge host fs) today t e))%nat.
Proof.
  intros host f fs today t e F K1 K2 K3.
  assert (A : forall S (sets : policy -> list (N * S)) named_, keeps sets named_ f fs ->
    forall r, In r (rules f) -> agree (named_ r) (flat_map sets [f]) (flat_map sets fs)).
  { intros S sets named_ K r R n s M. rewrite !in_flat_map. split.
    - intros (g & [<-|[]] & H). exists f. auto.
    - intros (g & G & H). exists f. split; [left; reflexivity | exact (K r g n s R G M H)]. }
  assert (W : within (merge host [f]) (merge host fs)).
  { constructor; cbn [merge superblocks protected rules subject_sets resource_sets destination_sets]; try reflexivity.
    - intros r H. apply in_flat_map in H as (g & [<-|[]] & H). apply in_flat_map. exists f. auto.
    - intros r H. apply in_flat_map in H as (g & [<-|[]] & H). apply (A _ _ _ K1 r H).
    - intros r H. apply in_flat_map in H as (g & [<-|[]] & H). apply (A _ _ _ K2 r H).
    - intros r H. apply in_flat_map in H as (g & [<-|[]] & H). apply (A _ _ _ K3 r H). }
  apply more_rules_never_allow. exact W.
Qed.

(** * An exception exempts only the subjects that it names *)

Definition strict (r : rule) : rule :=
  Rule (name r) (deny r) (subjects r) [] (resources r) (destinations r) (audit r) (expires r).
Definition without_exceptions (p : policy) : policy :=
  Policy (map strict (rules p)) (subject_sets p) (resource_sets p) (destination_sets p) (superblocks p) (protected p).

Lemma first_strict : forall f g l, (forall r, In r l -> f r = g (strict r)) ->
  first (filter f l) = first (filter g (map strict l))
  /\ first (enforcing (filter f l)) = first (enforcing (filter g (map strict l))).
Proof.
  intros f g l. induction l as [|r l IH]; intros H; [split; reflexivity|].
  destruct IH as [I1 I2]; [intros x Hx; apply H; right; exact Hx|]. cbn [map filter]. rewrite <- (H r (or_introl eq_refl)).
  destruct (f r); [|auto]. unfold enforcing in *. cbn [filter first strict audit name]. rewrite I1. split; [reflexivity|].
  destruct (negb (audit r)); cbn [first strict name]; rewrite I2; reflexivity.
Qed.

Theorem exception_frees_only_whom_it_names : forall p today t e,
  (forall r, In r (rules p) -> excepted p t r = false) -> decide p today t e = decide (without_exceptions p) today t e.
Proof.
  intros p today t e H.
  assert (X : forall r, excepted (without_exceptions p) t (strict r) = false).
  { intros r. unfold excepted, some_named. cbn [strict excepts without_exceptions subject_sets]. apply not_true_iff_false.
    rewrite existsb_exists. intros (s & _ & E). discriminate. }
  destruct (first_strict (hit p today t e) (hit (without_exceptions p) today t e) (rules p)) as [A1 A2].
  { intros r R. unfold hit. rewrite (H r R), (X r). destruct e as [| ? ? [] | | | |]; reflexivity. }
  destruct (first_strict (named_hit p today t) (named_hit (without_exceptions p) today t) (rules p)) as [B1 B2].
  { intros r R. unfold named_hit. rewrite (H r R), (X r). reflexivity. }
  destruct e; cbn [decide]; try (rewrite A1, A2; reflexivity).
  assert (D : labels_deny p today = labels_deny (without_exceptions p) today).
  { unfold labels_deny. cbn [without_exceptions rules]. clear. induction (rules p) as [|r l IH]; [reflexivity|].
    cbn [map existsb]. rewrite <- IH. reflexivity. }
  unfold tampering. rewrite B1, B2, D. destruct at_; reflexivity.
Qed.
