(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** The kernel's lookup in the tables gives the verdict that the policy means. *)

From Coq Require Import NArith List Bool Lia Arith Btauto Permutation Sorted.
From Guard Require Import Meaning Vectors Automaton Below Compile.
Import ListNotations.
Open Scope N_scope.

Lemma has_app : forall (K : Type) (good : K -> Prop) a b i, has good (a ++ b) i <-> has good a i \/ has good b i.
Proof.
  intros. unfold has. split.
  - intros (k & m & H & G). apply in_app_iff in H as [H|H]; [left|right]; exists k, m; auto.
  - intros [(k & m & H & G)|(k & m & H & G)]; exists k, m; (split; [apply in_app_iff; auto | exact G]).
Qed.

Lemma mem_spec : forall n l, mem n l = true <-> In n l.
Proof.
  intros. unfold mem. rewrite existsb_exists. split.
  - intros (x & H & E). apply N.eqb_eq in E. subst. exact H.
  - intros H. exists n. rewrite N.eqb_refl. auto.
Qed.

Lemma nth_map_error : forall (A : Type) (f : A -> N) l n x, nth_error l n = Some x -> nth n (map f l) 0 = f x.
Proof.
  intros A f l n x H. apply nth_error_nth. rewrite nth_error_map, H. reflexivity.
Qed.

Lemma last_nth : forall (A : Type) (l : list A) k x d, nth_error l k = Some x -> length l = S k -> last l d = x.
Proof.
  induction l as [|a l IH]; intros [|k] x d H L; cbn in *; try discriminate.
  - injection L as L. destruct l; [|discriminate]. injection H as <-. reflexivity.
  - injection L as L. destruct l as [|b l]; [discriminate|]. apply (IH k x d H L).
Qed.

Lemma find_combine : forall (ds : list N) (ns : list nat) d, (length ds <= length ns)%nat ->
  match find (fun e => fst e =? d) (combine ds ns) with
  | Some e => exists k, nth_error ds k = Some d /\ nth_error ns k = Some (snd e)
  | None => ~ In d ds
  end.
Proof.
  induction ds as [|x ds IH]; intros [|n ns] d L; cbn [combine find length] in *; try lia; auto.
  cbn [fst]. destruct (N.eqb_spec x d) as [->|Hne].
  - exists O. auto.
  - specialize (IH ns d). destruct (find _ (combine ds ns)) as [e|].
    + destruct IH as (k & Hk); [lia|]. exists (S k). exact Hk.
    + intros [H|H]; [congruence | apply IH; [lia | exact H]].
Qed.

Section Correct.
  Variables (fuel : nat) (bits : list (N * nat)) (p : policy) (today : N).
  Variables (t : list (node nat)) (ns : list nat) (reaches_ pervades_ : list N).
  Hypothesis V : valid bits p = true.
  Hypothesis built : build fuel (roots p) = Some (t, ns).
  Let rs := in_order p today.
  Let covers_ := map (fun n => covering p rs (marks n)) t.
  Hypothesis some_built : settle t N.lor fuel covers_ = Some reaches_.
  Hypothesis every_built : settle t N.land fuel covers_ = Some pervades_.
  Let im := image_of bits p today t ns reaches_ pervades_.
  Notation stands := (stands fuel (roots p)).

  Lemma parts_valid :
    (length (subject_sets p) <= 64)%nat /\ (length (destination_sets p) <= 64)%nat /\ (length (rules p) <= 512)%nat
    /\ plain_policy p = true
    /\ (forall s g, In s (resource_sets p) -> In g (snd s) -> known_device p g = true)
    /\ (forall g, In g (protected p) -> known_device p g = true)
    /\ (forall s g, In s (subject_sets p) -> In g (given (executables (snd s))) -> known_device p g = true)
    /\ (forall d, In d (destination_sets p) -> vsock_alone (snd d) = true)
    /\ (forall d q, In d (destination_sets p) -> In q (given (ports (snd d))) -> snd q < 65536)
    /\ distinct (map snd bits) = true
    /\ (forall l, In l (label_names p) -> In l (map fst bits)).
  Proof.
    unfold valid in V. rewrite !andb_true_iff in V.
    destruct V as (((((((((V1 & V2) & V3) & V4) & V5) & V6) & V7) & V8) & V9) & V10).
    rewrite !Nat.leb_le in *. rewrite !forallb_forall in *.
    repeat split; auto.
    - intros s g Hs Hg. specialize (V5 _ Hs). rewrite forallb_forall in V5. auto.
    - intros s g Hs Hg. specialize (V7 _ Hs). rewrite forallb_forall in V7. auto.
    - intros d Hd. specialize (V8 _ Hd). apply andb_true_iff in V8 as [V8 _]. exact V8.
    - intros d q Hd Hq. specialize (V8 _ Hd). apply andb_true_iff in V8 as [_ V8]. rewrite forallb_forall in V8.
      apply N.ltb_lt. auto.
    - intros l Hl. apply mem_spec. auto.
  Qed.

  (** ** The object's state *)

  Definition root_of (d : N) : items := table pattern_dec (root_entries p d).

  Lemma roots_length : length ns = S (length (devices p)).
  Proof.
    destruct (parts _ _ _ _ built) as (all & _ & _ & _ & -> & _). rewrite map_length. unfold roots.
    rewrite app_length, map_length. cbn. lia.
  Qed.

  Lemma In_devices : forall d, In d (devices p) <-> d = ABSTRACT \/ In d (superblocks p).
  Proof.
    intros d. destruct parts_valid as (_ & _ & _ & _ & _ & P & _). unfold devices. rewrite nodup_In. cbn [In].
    rewrite in_app_iff, in_map_iff. split.
    - intros [H|[H|(g & <- & H)]]; [auto | auto |]. apply P in H. unfold known_device in H.
      apply orb_true_iff in H as [H|H]; [right; apply mem_spec; exact H | left; apply N.eqb_eq; exact H].
    - intros [->|H]; auto.
  Qed.

  Lemma place_trouble : forall w, snd (place im w) = trouble_at p w.
  Proof.
    intros w. unfold place, trouble_at. destruct (lost w); [reflexivity|]. cbn [t_superblocks im image_of].
    pose proof (find_combine (devices p) ns (device w)) as F. rewrite roots_length in F. specialize (F (Nat.le_succ_diag_r _)).
    destruct (find _ _) as [e|].
    - destruct F as (k & Hk & _). apply nth_error_In, In_devices in Hk as [Hk|Hk].
      + rewrite Hk, N.eqb_refl, orb_true_r. reflexivity.
      + apply mem_spec in Hk. rewrite Hk. reflexivity.
    - cbn [snd]. replace (mem (device w) (superblocks p)) with false.
      + replace (device w =? ABSTRACT) with false; [destruct (pseudo w); reflexivity|].
        symmetry. apply N.eqb_neq. intros H. apply F, In_devices. auto.
      + symmetry. apply not_true_iff_false. rewrite mem_spec. intros H. apply F, In_devices. auto.
  Qed.

  Lemma on_unknown : forall d gs, (forall g, In g gs -> known_device p g = true) -> ~ In d (devices p) -> on d gs = [].
  Proof.
    intros d gs K N. unfold on. replace (filter (fun g => on_device g =? d) gs) with (@nil placed); [reflexivity|].
    symmetry. induction gs as [|g gs IH]; [reflexivity|]. cbn [filter]. destruct (N.eqb_spec (on_device g) d) as [E|E].
    - exfalso. apply N, In_devices. specialize (K g (or_introl eq_refl)). unfold known_device in K.
      apply orb_true_iff in K as [K|K]; [right; apply mem_spec; rewrite <- E; exact K | left; apply N.eqb_eq; rewrite <- E; exact K].
    - apply IH. intros g' H. apply K. right. exact H.
  Qed.

  Lemma keyed_nothing : forall (S K : Type) (keys : S -> list K) sets from,
    (forall s, In s sets -> keys s = []) -> keyed_from from keys sets = [].
  Proof.
    induction sets as [|s sets IH]; intros from H; [reflexivity|]. cbn [keyed_from]. rewrite (H s) by (left; reflexivity).
    cbn. apply IH. intros x Hx. apply H. right. exact Hx.
  Qed.

  Lemma root_unknown : forall d, ~ In d (devices p) -> root_of d = [].
  Proof.
    intros d N. destruct parts_valid as (_ & _ & _ & _ & P1 & P2 & P3 & _). unfold root_of, root_entries.
    rewrite (keyed_nothing _ _ _ (resource_sets p)) by (intros s Hs; apply on_unknown; [intros g; apply P1; exact Hs | exact N]).
    rewrite (on_unknown d (protected p)) by auto.
    rewrite (keyed_nothing _ _ _ (subject_sets p)) by (intros s Hs; apply on_unknown; [intros g; apply P3; exact Hs | exact N]).
    reflexivity.
  Qed.

  Lemma place_stands : forall w, snd (place im w) = None ->
    stands (fst (place im w)) (fold_left derive (path w) (root_of (device w))).
  Proof.
    intros w. unfold place. destruct (lost w); [discriminate|]. cbn [t_superblocks t_nodes im image_of].
    pose proof (find_combine (devices p) ns (device w)) as F. rewrite roots_length in F. specialize (F (Nat.le_succ_diag_r _)).
    destruct (find _ _) as [e|].
    - intros _. destruct F as (k & Hd & Hn). cbn [fst]. apply (stands_walk _ _ _ _ built).
      destruct (stands_root _ _ _ _ built k (root_of (device w))) as (n & Hn' & S).
      + unfold roots. rewrite nth_error_app1 by (rewrite map_length; apply nth_error_Some; congruence).
        rewrite nth_error_map, Hd. reflexivity.
      + rewrite Hn in Hn'. injection Hn' as ->. exact S.
    - intros _. cbn [fst]. rewrite (root_unknown _ F), derive_dead. exact (stands_dead _ _ _ _ built).
  Qed.

  Lemma place_extend : forall w b, place im (extend w b) = (walk t (fst (place im w)) b, snd (place im w)).
  Proof.
    intros w b. unfold place, extend. cbn [lost device path pseudo]. destruct (lost w); cbn [fst snd].
    - rewrite walk_dead. reflexivity.
    - destruct (find _ _) as [e|]; cbn [fst snd t_nodes im image_of].
      + rewrite (walk_app _ _ _ _ built). reflexivity.
      + rewrite walk_dead. reflexivity.
  Qed.

  Lemma place_marks : forall w, snd (place im w) = None -> exists x, nth_error t (fst (place im w)) = Some x
    /\ forall i, (marks x).[i] = true <-> has (fun g => matches g (path w) = true) (root_entries p (device w)) i.
  Proof.
    intros w H. apply place_stands in H. destruct (stands_node _ _ _ _ built _ _ H) as (x & T & M & _).
    exists x. split; [exact T|]. intros i. rewrite M, marks_accepts, accepts_walk. unfold accepts, root_of.
    apply has_table.
  Qed.

  Lemma some_on : forall d gs q, (exists g, In g (on d gs) /\ matches g q = true)
    <-> existsb (fun g => (on_device g =? d) && matches (shape g) q) gs = true.
  Proof.
    intros. rewrite existsb_exists. unfold on. split.
    - intros (g & H & M). apply in_map_iff in H as (x & <- & H). apply filter_In in H as [H D]. exists x. rewrite D. auto.
    - intros (x & H & E). apply andb_true_iff in E as [D M]. exists (shape x). split; [|exact M].
      apply in_map, filter_In. auto.
  Qed.

  Lemma nth_bound : forall (A : Type) (l : list A) n x, nth_error l n = Some x -> (n < length l)%nat.
  Proof. intros. apply nth_error_Some. congruence. Qed.

  Lemma mark_resource : forall w k s, nth_error (resource_sets p) k = Some s ->
    has (fun g => matches g (path w) = true) (root_entries p (device w)) (2 * SETS + k) <-> some_matches (snd s) w = true.
  Proof.
    intros w k s H. destruct parts_valid as (S64 & _). pose proof (nth_bound _ _ _ _ H) as Bk.
    unfold root_entries. rewrite !has_app, !keyed_spec. unfold some_matches, here. rewrite <- some_on. split.
    - intros [(n & s0 & g & Hn & E & Hg & M)|[(g & m & Hg & M & Hi)|(n & s0 & g & Hn & E & _)]].
      + assert (n = k) by lia. subst n. rewrite H in Hn. injection Hn as <-. eauto.
      + apply in_map_iff in Hg as (g0 & Hg & _). apply pair_equal_spec in Hg as [<- <-]. rewrite bit_spec in Hi. apply Nat.eqb_eq in Hi. lia.
      + apply nth_bound in Hn. unfold SETS in E. lia.
    - intros (g & Hg & M). left. exists k, s, g. auto.
  Qed.

  Lemma mark_protected : forall w,
    has (fun g => matches g (path w) = true) (root_entries p (device w)) (2 * SETS + length (resource_sets p))
    <-> existsb (fun g => matches g (path w)) (map shape (filter (here w) (protected p))) = true.
  Proof.
    intros w. destruct parts_valid as (S64 & _). unfold root_entries. rewrite !has_app, !keyed_spec, existsb_exists. split.
    - intros [(n & s0 & g & Hn & E & _)|[(g & m & Hg & M & Hi)|(n & s0 & g & Hn & E & _)]].
      + apply nth_bound in Hn. lia.
      + apply in_map_iff in Hg as (g0 & Hg & Hin). apply pair_equal_spec in Hg as [<- <-]. exists g0. auto.
      + apply nth_bound in Hn. unfold SETS in E. lia.
    - intros (g & Hg & M). right. left. exists g, (bit (2 * SETS + length (resource_sets p))). split; [|split; [exact M|]].
      + apply in_map_iff. exists g. auto.
      + rewrite bit_spec. apply Nat.eqb_refl.
  Qed.

  Lemma mark_executable : forall w n s, nth_error (subject_sets p) n = Some s ->
    has (fun g => matches g (path w) = true) (root_entries p (device w)) n
    <-> some_matches (given (executables (snd s))) w = true.
  Proof.
    intros w n s H. destruct parts_valid as (S64 & _). pose proof (nth_bound _ _ _ _ H) as Bk.
    unfold root_entries. rewrite !has_app, !keyed_spec. unfold some_matches, here. rewrite <- some_on. split.
    - intros [(k & s0 & g & Hn & E & _)|[(g & m & Hg & M & Hi)|(k & s0 & g & Hn & E & Hg & M)]].
      + unfold SETS in E. lia.
      + apply in_map_iff in Hg as (g0 & Hg & _). apply pair_equal_spec in Hg as [<- <-]. rewrite bit_spec in Hi. apply Nat.eqb_eq in Hi.
        unfold SETS in Hi. lia.
      + cbn in E. subst k. rewrite H in Hn. injection Hn as <-. eauto.
    - intros (g & Hg & M). right. right. exists n, s, g. auto.
  Qed.

  (** ** Rules that cover an object *)

  Lemma rules_bound : (length rs <= 512)%nat.
  Proof.
    destruct parts_valid as (_ & _ & L & _). unfold rs, in_order. assert (Q : forall l, length (sort l) = length l).
    { induction l as [|r l IH]; [reflexivity|]. cbn [sort fold_right length]. fold (sort l). rewrite <- IH.
      clear IH. induction (sort l) as [|x m IH]; [reflexivity|]. cbn [insert]. destruct (name r <=? name x); cbn [length]; lia. }
    rewrite Q. eapply Nat.le_trans; [|exact L]. clear. induction (rules p) as [|r l IH]; [reflexivity|]. cbn [filter].
    destruct (in_force today r); cbn [length]; lia.
  Qed.

  Lemma selected_bit : forall (S : Type) (sets : list (N * S)) (found : N) (negated_ : bool) (hold : S -> bool) j r
      (pick : bool -> N -> rule -> bool) (sel : option selection),
    (forall n, pick negated_ n r = match sel with None => false | Some s => Bool.eqb (negated s) negated_ && mem n (names s) end) ->
    (forall k s, nth_error sets k = Some s -> found.[k] = hold (snd s)) -> nth_error rs j = Some r ->
    (select found (map (fun s => vector (pick negated_ (fst s)) rs) sets)).[j]
    = match sel with None => false | Some s => Bool.eqb (negated s) negated_ && some_named sets (names s) hold end.
  Proof.
    intros S sets found negated_ hold j r pick sel Pick F R. apply iff_bool. rewrite select_map. unfold some_named. split.
    - intros (k & s & Hk & Hf & Hv). rewrite (vector_nth _ _ _ _ R), Pick in Hv. destruct sel as [q|]; [|discriminate].
      apply andb_true_iff in Hv as [E Hm]. rewrite E. apply existsb_exists. exists s. split; [exact (nth_error_In _ _ Hk)|].
      rewrite Hm, <- (F _ _ Hk). exact Hf.
    - destruct sel as [q|]; [|discriminate]. intros H. apply andb_true_iff in H as [E H].
      apply existsb_exists in H as (s & Hs & H). apply andb_true_iff in H as [Hm Hh].
      apply In_nth_error in Hs as (k & Hk). exists k, s. split; [exact Hk|]. rewrite (F _ _ Hk). split; [exact Hh|].
      rewrite (vector_nth _ _ _ _ R), Pick, E. exact Hm.
  Qed.

  Lemma covering_rule : forall w (x : node nat) j r, (forall i, (marks x).[i] = true <->
      has (fun g => matches g (path w) = true) (root_entries p (device w)) i) ->
    nth_error rs j = Some r -> (covering p rs (marks x)).[j] = covers_file p w r.
  Proof.
    intros w x j r M R. unfold covering.
    assert (F : forall k s, nth_error (resource_sets p) k = Some s ->
      (N.shiftr (marks x) (N.of_nat (2 * SETS))).[k] = some_matches (snd s) w).
    { intros k s H. rewrite shiftr_bit. apply iff_bool. rewrite M. apply mark_resource. exact H. }
    assert (B : (if (N.shiftr (marks x) (N.of_nat (2 * SETS))).[length (resource_sets p)] then bit PROTECTED else 0).[j] = false).
    { pose proof rules_bound. apply nth_bound in R. match goal with |- context [if ?b then _ else _] => destruct b end; [|apply zero_bit].
      rewrite bit_spec. apply Nat.eqb_neq. unfold PROTECTED. lia. }
    rewrite lor_bit, B, orb_false_r, lor_bit, ldiff_bit.
    rewrite (selected_bit _ _ _ false (fun gs => some_matches gs w) j r names_resource (resources r)) by (auto; reflexivity).
    rewrite (selected_bit _ _ _ true (fun gs => some_matches gs w) j r names_resource (resources r)) by (auto; reflexivity).
    rewrite (vector_nth _ _ _ _ R). unfold covers_file, selected. destruct (resources r) as [s|]; [|reflexivity].
    destruct (negated s); cbn; [destruct (some_named _ _ _); reflexivity | rewrite xorb_false_r, orb_false_r; reflexivity].
  Qed.

  Lemma covering_protected : forall w (x : node nat), (forall i, (marks x).[i] = true <->
      has (fun g => matches g (path w) = true) (root_entries p (device w)) i) ->
    (covering p rs (marks x)).[PROTECTED] = existsb (fun g => matches g (path w)) (map shape (filter (here w) (protected p))).
  Proof.
    intros w x M. unfold covering. pose proof rules_bound as B.
    assert (O : forall (f : rule -> bool), (vector f rs).[PROTECTED] = false).
    { intros f. rewrite vector_spec. replace (nth_error rs PROTECTED) with (@None rule); [reflexivity|].
      symmetry. apply nth_error_None. unfold PROTECTED. lia. }
    assert (Q : forall found (f : N * list placed -> rule -> bool) sets, (select found (map (fun s => vector (f s) rs) sets)).[PROTECTED] = false).
    { intros found f sets. apply not_true_iff_false. rewrite select_map. intros (k & s & _ & _ & H). rewrite O in H. discriminate. }
    rewrite lor_bit, lor_bit, ldiff_bit.
    rewrite (Q _ (fun s => names_resource false (fst s))), (Q _ (fun s => names_resource true (fst s))), O.
    cbn [orb andb]. rewrite shiftr_bit. apply iff_bool. rewrite <- mark_protected, <- M.
    destruct (marks x).[_]; [rewrite bit_spec, Nat.eqb_refl; tauto | rewrite zero_bit; tauto].
  Qed.

  Lemma covers_at : forall w, snd (place im w) = None ->
    (forall j r, nth_error rs j = Some r -> (nth (fst (place im w)) covers_ 0).[j] = covers_file p w r)
    /\ (nth (fst (place im w)) covers_ 0).[PROTECTED]
       = existsb (fun g => matches g (path w)) (map shape (filter (here w) (protected p))).
  Proof.
    intros w H. destruct (place_marks w H) as (x & T & M). unfold covers_. rewrite (nth_map_error _ _ _ _ _ T). split.
    - intros j r R. apply covering_rule; assumption.
    - apply covering_protected. exact M.
  Qed.

  (** ** Below a directory *)

  Lemma plain_root : forall d, plain_items (root_of d).
  Proof.
    intros d e He. apply In_table in He as (m & He). destruct parts_valid as (_ & _ & _ & P & _).
    unfold plain_policy in P. rewrite !andb_true_iff, !forallb_forall in P. destruct P as ((((P1 & P2) & P3) & _) & _).
    assert (K : forall (S : Type) (keys : S -> list pattern) sets from,
      (forall s g, In s sets -> In g (keys s) -> plain_pattern g = true) -> In (fst e, m) (keyed_from from keys sets) ->
      plain_pattern (fst e) = true).
    { clear. induction sets as [|s sets IH]; intros from P H; [destruct H|]. cbn [keyed_from] in H.
      apply in_app_iff in H as [H|H].
      - apply in_map_iff in H as (g & E & Hg). injection E as <- _. exact (P s g (or_introl eq_refl) Hg).
      - apply (IH _ (fun s' g Hs => P s' g (or_intror Hs)) H). }
    assert (O : forall gs g, In g (on d gs) -> exists x, In x gs /\ shape x = g).
    { intros gs g H. apply in_map_iff in H as (x & <- & H). apply filter_In in H as [H _]. eauto. }
    unfold root_entries in He. apply in_app_iff in He as [He|He]; [|apply in_app_iff in He as [He|He]].
    - refine (K _ _ _ _ _ He). intros s g Hs Hg. apply O in Hg as (x & Hx & <-). specialize (P1 _ Hs).
      rewrite forallb_forall in P1. auto.
    - apply in_map_iff in He as (g & E & Hg). injection E as <- _. apply O in Hg as (x & Hx & <-). auto.
    - refine (K _ _ _ _ _ He). intros s g Hs Hg. apply O in Hg as (x & Hx & <-). specialize (P3 _ Hs).
      destruct (executables (snd s)) as [gs|]; [|destruct Hx]. rewrite forallb_forall in P3. auto.
  Qed.

  Lemma plain_walk : forall q s, plain_items s -> plain_items (fold_left derive q s).
  Proof. induction q as [|c q IH]; intros s P; [exact P|]. apply IH, plain_after, P. Qed.

  Lemma reach_place : forall w m, snd (place im w) = None ->
    reach t (fst (place im w)) m <-> exists b, fst (place im (extend w b)) = m.
  Proof.
    intros w m H. rewrite (reach_walk _ _ _ _ built _ _ (place_stands _ H) (plain_walk _ _ (plain_root _))).
    split; intros (b & E); exists b; rewrite place_extend in *; exact E.
  Qed.

  Lemma snd_extend : forall w b, snd (place im (extend w b)) = snd (place im w).
  Proof. intros. rewrite place_extend. reflexivity. Qed.

  Lemma reaches_at : forall w, snd (place im w) = None ->
    (forall j r, nth_error rs j = Some r -> (nth (fst (place im w)) reaches_ 0).[j] = reaches p w r)
    /\ (nth (fst (place im w)) reaches_ 0).[PROTECTED]
       = some_below (map shape (filter (here w) (protected p))) (path w).
  Proof.
    intros w H. destruct parts_valid as (_ & _ & _ & P & _).
    assert (L : length covers_ = length t) by apply map_length.
    split; [intros j r R|]; apply iff_bool; rewrite (some_spec t _ _ _ L some_built).
    - rewrite reaches_means by exact P. split.
      + intros (m & Hm & C). apply reach_place in Hm as (b & <-); [|exact H]. exists b.
        destruct (covers_at (extend w b)) as [Q _]; [rewrite snd_extend; exact H|]. rewrite <- (Q _ _ R). exact C.
      + intros (b & C). exists (fst (place im (extend w b))). split; [apply reach_place; eauto|].
        destruct (covers_at (extend w b)) as [Q _]; [rewrite snd_extend; exact H|]. rewrite (Q _ _ R). exact C.
    - rewrite some_below_spec. split.
      + intros (m & Hm & C). apply reach_place in Hm as (b & <-); [|exact H]. exists b.
        destruct (covers_at (extend w b)) as [_ Q]; [rewrite snd_extend; exact H|]. rewrite Q in C. exact C.
      + intros (b & C). exists (fst (place im (extend w b))). split; [apply reach_place; eauto|].
        destruct (covers_at (extend w b)) as [_ Q]; [rewrite snd_extend; exact H|]. rewrite Q. exact C.
  Qed.

  Lemma pervades_at : forall w j r, snd (place im w) = None -> nth_error rs j = Some r ->
    (nth (fst (place im w)) pervades_ 0).[j] = pervades p w r.
  Proof.
    intros w j r H R. destruct parts_valid as (_ & _ & _ & P & _).
    assert (L : length covers_ = length t) by apply map_length.
    assert (C : forall b, (nth (fst (place im (extend w b))) covers_ 0).[j] = covers_file p (extend w b) r).
    { intros b. destruct (covers_at (extend w b)) as [Q _]; [rewrite snd_extend; exact H|]. exact (Q _ _ R). }
    apply iff_bool. rewrite (every_spec t _ _ _ L every_built). destruct (resources r) as [s|] eqn:S.
    - rewrite pervades_means by (exact P || congruence). split.
      + intros A b. rewrite <- C. apply A, reach_place; eauto.
      + intros A m Hm. apply reach_place in Hm as (b & <-); [|exact H]. rewrite C. apply A.
    - split.
      + intros A. specialize (A (fst (place im (extend w [])))). rewrite C in A. unfold covers_file in A. rewrite S in A.
        cbn in A. unfold pervades. rewrite S. apply A, reach_place; eauto.
      + unfold pervades. rewrite S. discriminate.
  Qed.

  (** ** Subjects *)

  Lemma union_map : forall (A : Type) (f : A -> N) l n, (union (map f l)).[n] = existsb (fun x => (f x).[n]) l.
  Proof. intros. rewrite union_spec. induction l as [|x l IH]; [reflexivity|]. cbn. rewrite IH. reflexivity. Qed.
  Lemma common_map : forall (A : Type) (f : A -> N) l n start,
    (common start (map f l)).[n] = start.[n] && forallb (fun x => (f x).[n]) l.
  Proof. intros. rewrite common_spec. f_equal. induction l as [|x l IH]; [reflexivity|]. cbn. rewrite IH. reflexivity. Qed.

  Lemma ALL_bit : forall n, (n < 64)%nat -> ALL.[n] = true.
  Proof. intros n H. unfold ALL. apply N.ones_spec_low. lia. Qed.

  Lemma existsb_ext : forall (A : Type) (f g : A -> bool) l, (forall x, f x = g x) -> existsb f l = existsb g l.
  Proof. intros A f g l E. induction l as [|x l IH]; [reflexivity|]. cbn. rewrite E, IH. reflexivity. Qed.
  Lemma forallb_ext : forall (A : Type) (f g : A -> bool) l, (forall x, f x = g x) -> forallb f l = forallb g l.
  Proof. intros A f g l E. induction l as [|x l IH]; [reflexivity|]. cbn. rewrite E, IH. reflexivity. Qed.

  Section OneSubject.
    Variables (n : nat) (s : N * subject).
    Hypothesis Hn : nth_error (subject_sets p) n = Some s.

    Lemma n64 : (n < 64)%nat.
    Proof. destruct parts_valid as (L & _). pose proof (nth_bound _ _ _ _ Hn). lia. Qed.

    Lemma id_bit : forall kind x, kind <> PROTOCOL ->
      (id_sets im kind x).[n] = true <-> In (kind, x) (subject_ids bits s).
    Proof.
      intros kind x K. unfold id_sets. cbn [t_ids im image_of]. rewrite mask_table, has_app, (keyed_bit _ _ _ _ _ Hn). split.
      - intros [(k & Hk & <-)|H]; [exact Hk|]. apply keyed_spec in H as (m & d & k & _ & _ & Hk & <-).
        unfold destination_ids in Hk. apply in_map_iff in Hk as (q & E & _). apply pair_equal_spec in E as [E _]. congruence.
      - intros H. left. eauto.
    Qed.

    Lemma id_kind : forall kind x (l : list N), kind <> PROTOCOL -> kind <> LABEL ->
      (kind = USER /\ l = given (users (snd s)) \/ kind = LOGIN /\ l = given (login_users (snd s))
       \/ kind = GROUP /\ l = given (groups (snd s))) ->
      (id_sets im kind x).[n] = mem x l.
    Proof.
      intros kind x l K K' C. apply iff_bool. rewrite id_bit by exact K. unfold subject_ids.
      rewrite !in_app_iff, !in_map_iff, mem_spec. split.
      - intros [(y & E & H)|[(y & E & H)|[(y & E & H)|(y & E & H)]]]; apply pair_equal_spec in E as [E <-];
          destruct C as [[-> ->]|[[-> ->]|[-> ->]]]; try discriminate E; try exact H; congruence.
      - intros H. destruct C as [[-> ->]|[[-> ->]|[-> ->]]]; eauto 6.
    Qed.

    Lemma without_bit : forall (A : Type) (k : subject -> option A),
      (vector (fun s => absent (k (snd s))) (subject_sets p)).[n] = absent (k (snd s)).
    Proof. intros. exact (vector_nth _ _ _ _ Hn). Qed.

    Lemma label_name : forall l, In l (given (has_read (snd s))) -> In l (label_names p).
    Proof.
      intros l H. unfold label_names. apply in_flat_map. exists s. split; [exact (nth_error_In _ _ Hn)|].
      destruct (has_read (snd s)); exact H.
    Qed.

    Lemma bit_of_in : forall l, In l (map fst bits) -> In (l, bit_of bits l) bits.
    Proof.
      intros l H. unfold bit_of. destruct (find _ bits) as [[l' b]|] eqn:F.
      - apply find_some in F as [F E]. cbn [fst] in E. apply N.eqb_eq in E. subst. exact F.
      - exfalso. apply in_map_iff in H as ([l' b] & E & H). cbn [fst] in E. subst.
        pose proof (find_none _ _ F _ H) as C. cbn [fst] in C. rewrite N.eqb_refl in C. discriminate.
    Qed.

    Lemma distinct_bits : forall a b n0, In (a, n0) bits -> In (b, n0) bits -> a = b.
    Proof.
      destruct parts_valid as (_ & _ & _ & _ & _ & _ & _ & _ & _ & D & _). clear - D.
      induction bits as [|[c m] l IH]; intros a b n0 Ha Hb; [destruct Ha|]. cbn [map snd distinct] in D.
      apply andb_true_iff in D as [Dm D]. apply negb_true_iff in Dm. rewrite <- not_true_iff_false, existsb_exists in Dm.
      assert (X : forall z, In (z, m) l -> False).
      { intros z Hz. apply Dm. exists m. rewrite Nat.eqb_refl. split; [|reflexivity]. exact (in_map snd _ _ Hz). }
      destruct Ha as [Ha|Ha], Hb as [Hb|Hb].
      - congruence.
      - apply pair_equal_spec in Ha as [<- <-]. destruct (X _ Hb).
      - apply pair_equal_spec in Hb as [<- <-]. destruct (X _ Ha).
      - exact (IH D _ _ _ Ha Hb).
    Qed.

    Lemma carried_bit : forall t0, (carried im t0).[n] = overlap (given (has_read (snd s))) (labels t0).
    Proof.
      intros t0. destruct parts_valid as (_ & _ & _ & _ & _ & _ & _ & _ & _ & _ & W).
      unfold carried. rewrite union_map. cbn [t_labels im image_of]. apply iff_bool. unfold overlap. rewrite !existsb_exists. split.
      - intros ([l b] & Hl & H). cbn [fst snd] in H. destruct (mem l (labels t0)) eqn:M; [|rewrite zero_bit in H; discriminate].
        apply id_bit in H; [|discriminate]. unfold subject_ids in H. rewrite !in_app_iff, !in_map_iff in H.
        destruct H as [(y & E & H)|[(y & E & H)|[(y & E & H)|(y & E & H)]]]; apply pair_equal_spec in E as [E1 E2]; try discriminate E1.
        apply Nat2N.inj in E2. assert (y = l).
        { apply distinct_bits with (n0 := b); [|exact Hl]. rewrite <- E2. apply bit_of_in, W, label_name, H. }
        subst y. eauto.
      - intros (l & Hl & M). exists (l, bit_of bits l). split; [apply bit_of_in, W, label_name, Hl|].
        cbn [fst snd]. rewrite M. apply id_bit; [discriminate|]. unfold subject_ids. rewrite !in_app_iff, !in_map_iff. eauto 8.
    Qed.

    Lemma land_ones : forall m, (N.land m ALL).[n] = m.[n].
    Proof. intros. rewrite land_bit, ALL_bit, andb_true_r by apply n64. reflexivity. Qed.

    Lemma executable_bit : forall t0,
      match in_executables im t0, known p t0 with
      | Some m, Some w => m.[n] = some_matches (given (executables (snd s))) w
      | None, None => True
      | _, _ => False
      end.
    Proof.
      intros t0. unfold in_executables, known. destruct (executable t0) as [w|]; [|exact I].
      rewrite <- place_trouble. destruct (place im w) as [m [r|]] eqn:P; cbn [snd]; [exact I|].
      destruct (place_marks w) as (x & T & M); [rewrite P; reflexivity|]. rewrite P in T. cbn [fst] in T.
      cbn [c_executables im image_of]. rewrite (nth_map_error _ (fun x => N.land (marks x) ALL) _ _ _ T), land_ones.
      apply iff_bool. rewrite M. apply mark_executable. exact Hn.
    Qed.

    Lemma below_tree : forall u c, (forall h, In h u -> forallb (fun b => negb (b =? star)) h = true) ->
      matches (tree_below u) c = below_service u c.
    Proof.
      unfold matches, tree_below. cbn [fst snd]. induction u as [|h u IH]; intros c L; [destruct c; reflexivity|].
      destruct c as [|x c]; [reflexivity|]. cbn. rewrite literal_glob by (apply L; left; reflexivity).
      rewrite IH by (intros h' H; apply L; right; exact H). unfold component_dec. reflexivity.
    Qed.

    Lemma service_bit : forall t0,
      match in_services im t0, service t0 with
      | Some m, Some c => m.[n] = in_service (given (services (snd s))) c
      | None, None => True
      | _, _ => False
      end.
    Proof.
      intros t0. unfold in_services. destruct (service t0) as [c|]; [|exact I].
      assert (S : stands (service_root im) (table pattern_dec (service_entries p))).
      { destruct (stands_root _ _ _ _ built (length (devices p)) (table pattern_dec (service_entries p))) as (m & Hm & S).
        - unfold roots. rewrite nth_error_app2; rewrite map_length; [|reflexivity]. rewrite Nat.sub_diag. reflexivity.
        - cbn [service_root im image_of]. rewrite (last_nth _ _ _ _ _ Hm roots_length). exact S. }
      destruct (walk_marks _ _ _ _ built _ _ c S) as (x & T & M). cbn [t_nodes c_services im image_of].
      rewrite (nth_map_error _ (fun x => N.land (N.shiftr (marks x) (N.of_nat SETS)) ALL) _ _ _ T), land_ones, shiftr_bit.
      destruct parts_valid as (_ & _ & _ & P & _). unfold plain_policy in P. rewrite !andb_true_iff, !forallb_forall in P.
      destruct P as ((_ & P) & _). specialize (P _ (nth_error_In _ _ Hn)).
      assert (L : forall u h, In u (given (services (snd s))) -> In h u -> forallb (fun b => negb (b =? star)) h = true).
      { intros u h Hu Hh. destruct (services (snd s)) as [us|]; [|destruct Hu]. rewrite forallb_forall in P.
        specialize (P _ Hu). rewrite forallb_forall in P. auto. }
      apply iff_bool. rewrite M. unfold accepts. rewrite has_table. unfold service_entries. rewrite keyed_spec.
      unfold in_service. rewrite existsb_exists. split.
      - intros (k & s0 & g & Hk & E & Hg & B). assert (n = k) by lia. subst k. rewrite Hn in Hk. injection Hk as <-.
        apply in_map_iff in Hg as (u & <- & Hu). exists u. split; [exact Hu|]. rewrite <- below_tree; [exact B|]. intros h. apply L. exact Hu.
      - intros (u & Hu & B). exists n, s, (tree_below u). repeat split; auto; [apply in_map; exact Hu|].
        rewrite below_tree; [exact B|]. intros h. apply L. exact Hu.
    Qed.

    Lemma overlap_union : forall kind l l',
      (forall x, (id_sets im kind x).[n] = mem x l) -> (union (map (id_sets im kind) l')).[n] = overlap l l'.
    Proof.
      intros kind l l' E. rewrite union_map. unfold overlap, mem. apply iff_bool. rewrite !existsb_exists. split.
      - intros (x & Hx & H). rewrite E in H. apply mem_spec in H. exists x. split; [exact H|]. apply existsb_exists.
        exists x. rewrite N.eqb_refl. auto.
      - intros (x & Hx & H). apply existsb_exists in H as (y & Hy & H). apply N.eqb_eq in H. subst y. exists x.
        rewrite E. split; [exact Hy | apply mem_spec; exact Hx].
    Qed.

    Lemma user_bits : forall x, (id_sets im USER x).[n] = mem x (given (users (snd s))).
    Proof. intros. apply id_kind; try discriminate. auto. Qed.
    Lemma group_bits : forall x, (id_sets im GROUP x).[n] = mem x (given (groups (snd s))).
    Proof. intros. apply id_kind; try discriminate. auto. Qed.
    Lemma login_bits : forall x, (id_sets im LOGIN x).[n] = mem x (given (login_users (snd s))).
    Proof. intros. apply id_kind; try discriminate. auto. Qed.

    Ltac keys := unfold binding_sets, exempting_sets, may_be, surely_is; rewrite common_spec, (ALL_bit _ n64);
      cbn [forallb any_user any_login any_group any_service any_executable any_label im image_of];
      rewrite !lor_bit, !without_bit, login_bits, carried_bit; fold im.

    Lemma binding_bit : forall t0, (binding_sets im t0).[n] = may_be p t0 (snd s).
    Proof.
      intros t0. pose proof (executable_bit t0) as X. pose proof (service_bit t0) as Y. keys.
      rewrite (overlap_union USER (given (users (snd s)))) by exact user_bits.
      assert (U : key (users (snd s)) (fun l => ids_truncated t0 || overlap l (ids t0))
                  = absent (users (snd s)) || (overlap (given (users (snd s))) (ids t0) || (if ids_truncated t0 then ALL else 0).[n])).
      { destruct (users (snd s)); cbn; [|reflexivity]. destruct (ids_truncated t0); rewrite ?ALL_bit, ?zero_bit by apply n64.
        - rewrite orb_true_r. reflexivity.
        - rewrite orb_false_r. reflexivity. }
      rewrite <- U.
      assert (G : key (groups (snd s)) (fun l => ids_truncated t0 || overlap l (group_ids t0))
                  = absent (groups (snd s)) || (if ids_truncated t0 then ALL else union (map (id_sets im GROUP) (group_ids t0))).[n]).
      { destruct (ids_truncated t0); rewrite ?ALL_bit by apply n64.
        - destruct (groups (snd s)); cbn; reflexivity.
        - rewrite (overlap_union GROUP (given (groups (snd s)))) by exact group_bits. destruct (groups (snd s)); reflexivity. }
      rewrite <- G.
      assert (E : key (executables (snd s)) (fun gs => match known p t0 with None => true | Some w => some_matches gs w end)
                  = absent (executables (snd s)) || (unless_none (in_executables im t0) ALL).[n]).
      { destruct (in_executables im t0), (known p t0); try contradiction; cbn [unless_none].
        - rewrite X. destruct (executables (snd s)); reflexivity.
        - rewrite ALL_bit by apply n64. destruct (executables (snd s)); reflexivity. }
      rewrite <- E.
      assert (Q : key (services (snd s)) (fun us => match service t0 with None => true | Some c => in_service us c end)
                  = absent (services (snd s)) || (unless_none (in_services im t0) ALL).[n]).
      { destruct (in_services im t0), (service t0); try contradiction; cbn [unless_none].
        - rewrite Y. destruct (services (snd s)); reflexivity.
        - rewrite ALL_bit by apply n64. destruct (services (snd s)); reflexivity. }
      rewrite <- Q.
      assert (I : key (login_users (snd s)) (mem (login t0))
                  = absent (login_users (snd s)) || mem (login t0) (given (login_users (snd s))))
        by (destruct (login_users (snd s)); reflexivity).
      assert (H : key (has_read (snd s)) (fun l => overlap l (labels t0))
                  = absent (has_read (snd s)) || overlap (given (has_read (snd s))) (labels t0))
        by (destruct (has_read (snd s)); reflexivity).
      rewrite <- I, <- H. btauto.
    Qed.

    Lemma freeing_bit : forall t0, (exempting_sets im t0).[n] = surely_is p t0 (snd s).
    Proof.
      intros t0. pose proof (executable_bit t0) as X. pose proof (service_bit t0) as Y. keys.
      assert (U : key (users (snd s)) (fun l => negb (ids_truncated t0) && forallb (fun x => mem x l) (ids t0))
                  = absent (users (snd s)) || (if ids_truncated t0 then 0 else common ALL (map (id_sets im USER) (ids t0))).[n]).
      { destruct (ids_truncated t0); cbn [negb andb].
        - rewrite zero_bit. destruct (users (snd s)); reflexivity.
        - rewrite common_map, ALL_bit by apply n64. rewrite (forallb_ext _ _ _ _ user_bits).
          destruct (users (snd s)); reflexivity. }
      rewrite <- U.
      assert (G : key (groups (snd s)) (fun l => negb (ids_truncated t0) && overlap l (memberships t0))
                  = absent (groups (snd s)) || (if ids_truncated t0 then 0 else union (map (id_sets im GROUP) (memberships t0))).[n]).
      { destruct (ids_truncated t0); cbn [negb andb].
        - rewrite zero_bit. destruct (groups (snd s)); reflexivity.
        - rewrite (overlap_union GROUP (given (groups (snd s)))) by exact group_bits. destruct (groups (snd s)); reflexivity. }
      rewrite <- G.
      assert (E : key (executables (snd s)) (fun gs => match known p t0 with None => false | Some w => some_matches gs w end)
                  = absent (executables (snd s)) || (unless_none (in_executables im t0) 0).[n]).
      { destruct (in_executables im t0), (known p t0); try contradiction; cbn [unless_none].
        - rewrite X. destruct (executables (snd s)); reflexivity.
        - rewrite zero_bit. destruct (executables (snd s)); reflexivity. }
      rewrite <- E.
      assert (Q : key (services (snd s)) (fun us => match service t0 with None => false | Some c => in_service us c end)
                  = absent (services (snd s)) || (unless_none (in_services im t0) 0).[n]).
      { destruct (in_services im t0), (service t0); try contradiction; cbn [unless_none].
        - rewrite Y. destruct (services (snd s)); reflexivity.
        - rewrite zero_bit. destruct (services (snd s)); reflexivity. }
      rewrite <- Q.
      assert (I : key (login_users (snd s)) (mem (login t0))
                  = absent (login_users (snd s)) || mem (login t0) (given (login_users (snd s))))
        by (destruct (login_users (snd s)); reflexivity).
      assert (H : key (has_read (snd s)) (fun l => overlap l (labels t0))
                  = absent (has_read (snd s)) || overlap (given (has_read (snd s))) (labels t0))
        by (destruct (has_read (snd s)); reflexivity).
      rewrite <- I, <- H. btauto.
    Qed.
  End OneSubject.

  Lemma bound_bit : forall t0 j r, nth_error rs j = Some r ->
    (bound im t0).[j] = binds p t0 r && negb (excepted p t0 r).
  Proof.
    intros t0 j r R. unfold bound. cbn [t_subjects always im image_of]. fold im.
    rewrite ldiff_bit, lor_bit, !map_map. cbn [fst snd]. f_equal; [|f_equal].
    - rewrite (vector_nth _ _ _ _ R). unfold binds. apply iff_bool. rewrite orb_true_iff, select_map. split.
      + intros [H|(k & s & Hk & Hm & Hv)].
        * destruct (subjects r); [discriminate | reflexivity].
        * rewrite (vector_nth _ _ _ _ R) in Hv. destruct (subjects r) as [l|]; [|reflexivity].
          rewrite (binding_bit _ _ Hk) in Hm. apply existsb_exists. exists s. rewrite Hv, Hm.
          split; [exact (nth_error_In _ _ Hk) | reflexivity].
      + destruct (subjects r) as [l|] eqn:E; [|auto]. intros H. right. apply existsb_exists in H as (s & Hs & H).
        apply andb_true_iff in H as [H1 H2]. apply In_nth_error in Hs as (k & Hk). exists k, s. split; [exact Hk|].
        rewrite (binding_bit _ _ Hk). split; [exact H2|]. rewrite (vector_nth _ _ _ _ R), E. exact H1.
    - apply iff_bool. rewrite select_map. unfold excepted, some_named. rewrite existsb_exists. split.
      + intros (k & s & Hk & Hm & Hv). rewrite (freeing_bit _ _ Hk) in Hm. rewrite (vector_nth _ _ _ _ R) in Hv.
        exists s. rewrite Hv, Hm. split; [exact (nth_error_In _ _ Hk) | reflexivity].
      + intros (s & Hs & H). apply andb_true_iff in H as [H1 H2]. apply In_nth_error in Hs as (k & Hk). exists k, s.
        split; [exact Hk|]. rewrite (freeing_bit _ _ Hk). split; [exact H2|]. rewrite (vector_nth _ _ _ _ R). exact H1.
  Qed.

  (** ** Destinations *)

  Lemma firstn_prefix : forall (k a : list bool), is_prefix Bool.eqb k a = true <-> exists l, (l <= length a)%nat /\ firstn l a = k.
  Proof.
    induction k as [|x k IH]; intros a.
    - split; [intros _; exists O; split; [lia | reflexivity] | reflexivity].
    - destruct a as [|y a]; cbn [is_prefix].
      + split; [discriminate | intros ([|l] & L & E); discriminate E].
      + rewrite andb_true_iff, IH. split.
        * intros (E & l & L & F). apply eqb_prop in E. subst. exists (S l). cbn. split; [lia | reflexivity].
        * intros ([|l] & L & F); [discriminate|]. cbn in F. injection F as -> <-. rewrite eqb_reflx.
          split; [reflexivity|]. exists l. cbn in L. split; [lia | reflexivity].
  Qed.

  Lemma block_spec : forall k first last_, first <= last_ -> let b := block k first last_ in
    (b <= k)%nat /\ first mod 2 ^ N.of_nat b = 0 /\ first + 2 ^ N.of_nat b - 1 <= last_.
  Proof.
    induction k as [|k IH]; intros first last_ L; cbn [block].
    - cbn. rewrite N.mod_1_r. repeat split; lia.
    - destruct (_ && _) eqn:E.
      + apply andb_true_iff in E as [E1 E2]. apply N.eqb_eq in E1. apply N.leb_le in E2. auto.
      + destruct (IH first last_ L) as (B & H). split; [lia | exact H].
  Qed.

  Lemma firstn_seq_min : forall m n s, firstn m (seq s n) = seq s (Nat.min m n).
  Proof. induction m as [|m IH]; intros [|n] s; cbn; [reflexivity..|]. rewrite IH. reflexivity. Qed.

  Lemma high_bits : forall x j, x < 65536 -> 16 <= j -> N.testbit x j = false.
  Proof. intros x j L J. rewrite <- (N.mod_small x (2 ^ 16)) by exact L. apply N.mod_pow2_bits_high. exact J. Qed.

  Lemma same_block : forall k x y, (k <= 16)%nat -> x < 65536 -> y < 65536 ->
    (exists l, (l <= 16)%nat /\ firstn l (port_bits x) = firstn (16 - k) (port_bits y))
    <-> x / 2 ^ N.of_nat k = y / 2 ^ N.of_nat k.
  Proof.
    intros k x y K X Y. rewrite <- !N.shiftr_div_pow2. unfold port_bits.
    split.
    - intros (l & L & E). assert (l = (16 - k)%nat).
      { apply (f_equal (@length bool)) in E. rewrite !firstn_length, !map_length, !seq_length in E. lia. }
      subst l. rewrite !firstn_map, !firstn_seq_min in E. apply N.bits_inj. intros j. rewrite !N.shiftr_spec by lia.
      destruct (N.le_gt_cases 16 (j + N.of_nat k)) as [J|J]; [rewrite !high_bits by assumption; reflexivity|].
      assert (I : In (15 - N.to_nat (j + N.of_nat k))%nat (seq 0 (Nat.min (16 - k) 16))) by (apply in_seq; lia).
      pose proof (ext_in_map E _ I) as Q. cbv beta in Q.
      replace (N.of_nat (15 - (15 - N.to_nat (j + N.of_nat k)))) with (j + N.of_nat k) in Q by lia. exact Q.
    - intros E. exists (16 - k)%nat. split; [lia|]. rewrite !firstn_map, !firstn_seq_min. apply map_ext_in.
      intros i I. apply in_seq in I.
      apply (f_equal (fun z => N.testbit z (N.of_nat (15 - i) - N.of_nat k))) in E. rewrite !N.shiftr_spec in E by lia.
      replace (N.of_nat (15 - i) - N.of_nat k + N.of_nat k) with (N.of_nat (15 - i)) in E by lia. exact E.
  Qed.

  Lemma in_block : forall k x y, y mod 2 ^ N.of_nat k = 0 ->
    x / 2 ^ N.of_nat k = y / 2 ^ N.of_nat k <-> y <= x /\ x < y + 2 ^ N.of_nat k.
  Proof.
    intros k x y M. set (q := 2 ^ N.of_nat k) in *. assert (Q : q <> 0) by (apply N.pow_nonzero; discriminate).
    pose proof (N.div_mod y q Q) as Dy. pose proof (N.div_mod x q Q) as Dx. pose proof (N.mod_lt x q Q) as Lx.
    rewrite M, N.add_0_r in Dy. clearbody q. split.
    - intros E. rewrite E, <- Dy in Dx. remember (x mod q) as r eqn:Er. clear Er E Dy M. lia.
    - intros [L1 L2]. symmetry. apply (N.div_unique x q (y / q) (x - y)); [lia|]. rewrite <- Dy. lia.
  Qed.

  Lemma port_prefixes_spec : forall fuel0 first last_ x, last_ < 65536 -> x < 65536 -> last_ + 1 - first <= N.of_nat fuel0 ->
    (exists k, In k (port_prefixes fuel0 first last_) /\ exists l, (l <= 16)%nat /\ firstn l (port_bits x) = k)
    <-> first <= x /\ x <= last_.
  Proof.
    induction fuel0 as [|fuel0 IH]; intros first last_ x L X F; cbn [port_prefixes].
    - split; [intros (k & [] & _) | lia].
    - destruct (N.ltb_spec last_ first) as [G|G]; [split; [intros (k & [] & _) | lia]|].
      destruct (block_spec 16 first last_ G) as (B & M & E). set (b := block 16 first last_) in *.
      assert (P : 0 < 2 ^ N.of_nat b) by (apply N.neq_0_lt_0, N.pow_nonzero; discriminate).
      specialize (IH (first + 2 ^ N.of_nat b) last_ x L X). split.
      + intros (k & [<-|H] & Hl).
        * apply same_block in Hl; [|exact B|exact X|lia]. apply in_block in Hl; [|exact M]. lia.
        * assert (first + 2 ^ N.of_nat b <= x /\ x <= last_) by (apply IH; [lia | eauto]). lia.
      + intros [H1 H2]. destruct (N.lt_ge_cases x (first + 2 ^ N.of_nat b)) as [C|C].
        * exists (firstn (16 - b) (port_bits first)). split; [left; reflexivity|].
          apply same_block; [exact B | exact X | lia |]. apply in_block; [exact M | lia].
        * destruct (proj2 (IH ltac:(lia)) ltac:(lia)) as (k & Hk & Hl). exists k. split; [right; exact Hk | exact Hl].
  Qed.

  Section OneDestination.
    Variables (n : nat) (d : N * destination).
    Hypothesis Hn : nth_error (destination_sets p) n = Some d.

    Lemma d64 : (n < 64)%nat.
    Proof. destruct parts_valid as (_ & L & _). pose proof (nth_bound _ _ _ _ Hn). lia. Qed.

    Lemma protocol_bit : forall x, (id_sets im PROTOCOL x).[n] = mem x (given (protocols (snd d))).
    Proof.
      intros x. apply iff_bool. unfold id_sets. cbn [t_ids im image_of].
      rewrite mask_table, has_app, (keyed_bit _ _ _ _ _ Hn), mem_spec. split.
      - intros [H|(k & Hk & <-)].
        + apply keyed_spec in H as (m & s & k & _ & _ & Hk & <-). unfold subject_ids in Hk.
          rewrite !in_app_iff, !in_map_iff in Hk. destruct Hk as [(y & E & _)|[(y & E & _)|[(y & E & _)|(y & E & _)]]];
            apply pair_equal_spec in E as [E _]; discriminate E.
        + apply in_map_iff in Hk as (y & E & H). apply pair_equal_spec in E as [_ <-]. exact H.
      - intros H. right. exists (PROTOCOL, x). split; [apply in_map; exact H | reflexivity].
    Qed.

    Lemma trie_bit : forall (A : Type) (same : forall x y : A, {x = y} + {x <> y}) (keys : N * destination -> list (list A)) a m, (m <= length a)%nat ->
      (longest same m a (trie same keys p)).[n] = true
      <-> exists k, In k (keys d) /\ exists l, (l <= m)%nat /\ firstn l a = k.
    Proof. intros A same keys a m L. unfold trie. rewrite longest_spec by exact L. apply keyed_bit. exact Hn. Qed.

    Lemma network_bit : forall (six : bool) a,
      (longest bool_dec (length a) a (if six then t_ipv6 im else t_ipv4 im)).[n]
      = existsb (in_cidr (six, a)) (given (cidrs (snd d))).
    Proof.
      intros six a. apply iff_bool.
      replace (if six then t_ipv6 im else t_ipv4 im) with (trie bool_dec (networks six) p) by (destruct six; reflexivity).
      rewrite trie_bit by apply le_n. rewrite existsb_exists. unfold in_cidr, networks. cbn [fst snd]. split.
      - intros (k & Hk & H). apply in_map_iff in Hk as (c & <- & Hc). apply filter_In in Hc as [Hc E]. exists c.
        split; [exact Hc|]. apply eqb_prop in E. rewrite E, eqb_reflx. apply firstn_prefix. exact H.
      - intros (c & Hc & H). apply andb_true_iff in H as [E H]. exists (snd c). split; [|apply firstn_prefix; exact H].
        apply in_map, filter_In. split; [exact Hc|]. apply eqb_prop in E. rewrite <- E. apply eqb_reflx.
    Qed.

    Lemma whole_bit : forall six : bool, (longest bool_dec 0 [] (if six then t_ipv6 im else t_ipv4 im)).[n]
      = whole six (given (cidrs (snd d))).
    Proof.
      intros six. pose proof (network_bit six []) as H. cbn [length] in H. rewrite H. clear H. unfold whole. apply existsb_ext. intros c. unfold in_cidr. cbn [fst snd].
      destruct (snd c); reflexivity.
    Qed.

    Lemma port_bit : forall x, x < 65536 -> (longest bool_dec 16 (port_bits x) (t_ports im)).[n]
      = existsb (fun range => (fst range <=? x) && (x <=? snd range)) (given (ports (snd d))).
    Proof.
      intros x X. destruct parts_valid as (_ & _ & _ & _ & _ & _ & _ & _ & P & _).
      apply iff_bool. cbn [t_ports im image_of]. rewrite trie_bit by (unfold port_bits; rewrite map_length, seq_length; lia).
      rewrite existsb_exists. unfold port_ranges. split.
      - intros (k & Hk & H). apply in_flat_map in Hk as (q & Hq & Hk). exists q. split; [exact Hq|].
        apply andb_true_iff. rewrite !N.leb_le.
        apply (port_prefixes_spec (N.to_nat (snd q + 1 - fst q)) (fst q) (snd q) x).
        + exact (P _ _ (nth_error_In _ _ Hn) Hq).
        + exact X.
        + rewrite N2Nat.id. lia.
        + eauto.
      - intros (q & Hq & H). apply andb_true_iff in H. rewrite !N.leb_le in H.
        apply (port_prefixes_spec (N.to_nat (snd q + 1 - fst q))) in H as (k & Hk & H).
        + exists k. split; [|exact H]. apply in_flat_map. eauto.
        + exact (P _ _ (nth_error_In _ _ Hn) Hq).
        + exact X.
        + rewrite N2Nat.id. lia.
    Qed.

    Lemma anywhere_bit : forall (A : Type) (k : destination -> option A),
      (vector (fun d => absent (vsock (snd d)) && absent (k (snd d))) (destination_sets p)).[n]
      = absent (vsock (snd d)) && absent (k (snd d)).
    Proof. intros. exact (vector_nth _ _ _ _ Hn). Qed.

    Lemma at_bit : forall (address_ : N) action a port protocol negated_, port < 65536 ->
      (forall cs, cidrs (snd d) = Some cs -> address_.[n] = holds_address action a negated_ cs) ->
      (destination_sets_at im address_ (longest bool_dec 16 (port_bits port) (t_ports im)) (id_sets im PROTOCOL protocol)).[n]
      = is_at action a port protocol negated_ (snd d).
    Proof.
      intros address_ action a port protocol negated_ X H. unfold destination_sets_at, is_at.
      rewrite common_spec, ALL_bit by apply d64.
      cbn [forallb any_address any_port any_protocol im image_of]. fold im.
      rewrite !lor_bit, !anywhere_bit, port_bit, protocol_bit by exact X.
      pose proof parts_valid as (_ & _ & _ & _ & _ & _ & _ & W & _). specialize (W _ (nth_error_In _ _ Hn)).
      unfold vsock_alone in W. destruct (vsock (snd d)) as [es|]; cbn [absent andb].
      - rewrite !andb_true_iff in W. destruct W as (((_ & W) & _) & _). destruct (ports (snd d)); [discriminate|].
        cbn. apply andb_false_r.
      - rewrite andb_true_r. destruct (cidrs (snd d)) as [cs|] eqn:C; cbn [absent key orb]; [rewrite (H _ eq_refl)|];
          destruct (ports (snd d)), (protocols (snd d)); cbn; rewrite ?andb_true_r; try reflexivity; apply andb_assoc.
    Qed.

    Lemma vsock_bit : forall cid port, (longest N.eq_dec 2 [cid; port] (t_vsock im)).[n] = at_vsock cid port (snd d).
    Proof.
      intros cid port. apply iff_bool. cbn [t_vsock im image_of]. rewrite trie_bit by (cbn; lia). unfold at_vsock, endpoints.
      pose proof parts_valid as (_ & _ & _ & _ & _ & _ & _ & W & _). specialize (W _ (nth_error_In _ _ Hn)).
      unfold vsock_alone in W. destruct (vsock (snd d)) as [es|]; cbn [given map].
      - rewrite !andb_true_iff, forallb_forall in W. destruct W as (_ & W). rewrite existsb_exists. split.
        + intros (k & Hk & l & L & E). apply in_map_iff in Hk as (e & <- & He). exists e. split; [exact He|].
          specialize (W _ He). destruct e as [[c|] [q|]]; try discriminate W; destruct l as [|[|[|l]]]; try discriminate E; try lia;
            cbn in E; try injection E as <- <-; try injection E as <-; cbn; rewrite ?N.eqb_refl; reflexivity.
        + intros (e & He & H). exists (endpoint_key e). split; [apply in_map; exact He|]. specialize (W _ He).
          destruct e as [[c|] [q|]]; try discriminate W; cbn in H; try apply andb_true_iff in H as [H1 H2].
          * apply N.eqb_eq in H1, H2. subst. exists 2%nat. auto.
          * apply N.eqb_eq in H1. subst. exists 1%nat. auto.
          * exists 0%nat. auto.
      - split; [intros (k & [] & _) | discriminate].
    Qed.
  End OneDestination.

  Lemma covering_rules_bit : forall plain spared j r (hold : bool -> destination -> bool), nth_error rs j = Some r ->
    (forall n d, nth_error (destination_sets p) n = Some d -> plain.[n] = hold false (snd d) /\ spared.[n] = hold true (snd d)) ->
    (covering_rules im plain spared).[j]
    = selected (destination_sets p) (destinations r) (hold match destinations r with None => false | Some s => negated s end).
  Proof.
    intros plain spared j r hold R H. unfold covering_rules. cbn [t_destinations not_destinations im image_of].
    rewrite lor_bit, ldiff_bit, !map_map. cbn [fst snd].
    rewrite (selected_bit _ _ plain false (hold false) j r names_destination (destinations r))
      by (try reflexivity; try exact R; intros k s Hk; apply (H _ _ Hk)).
    rewrite (selected_bit _ _ spared true (hold true) j r names_destination (destinations r))
      by (try reflexivity; try exact R; intros k s Hk; apply (H _ _ Hk)).
    rewrite (vector_nth _ _ _ _ R). unfold selected. destruct (destinations r) as [s|]; [|reflexivity].
    destruct (negated s); cbn; [destruct (some_named _ _ _); reflexivity | rewrite xorb_false_r, orb_false_r; reflexivity].
  Qed.

  Lemma endpoint_rule : forall action to port protocol j r, port < 65536 -> nth_error rs j = Some r ->
    (reach_endpoint im action to port protocol).[j] = covers_endpoint p action to port protocol r.
  Proof.
    intros action to port protocol j r X R. unfold reach_endpoint, covers_endpoint.
    destruct (everywhere action (unmapped to)) eqn:E.
    - apply (covering_rules_bit _ _ j r (is_at action (unmapped to) port protocol) R). intros n d Hn.
      split; apply at_bit; try assumption; intros cs C; unfold holds_address; rewrite E.
      + apply ALL_bit, (d64 _ _ Hn).
      + pose proof (whole_bit _ _ Hn false) as W4. pose proof (whole_bit _ _ Hn true) as W6. rewrite C in W4, W6. cbn [given] in W4, W6.
        cbn [negb orb]. destruct (fst (unmapped to)); cbn [negb orb]; [rewrite land_bit, W4, W6 | rewrite W4, andb_true_r]; reflexivity.
    - apply (covering_rules_bit _ _ j r (is_at action (unmapped to) port protocol) R). intros n d Hn.
      split; apply at_bit; try assumption; intros cs C; unfold holds_address; rewrite E, (network_bit _ _ Hn), C; cbn [given];
        rewrite <- surjective_pairing; reflexivity.
  Qed.

  Lemma vsock_rule : forall cid port j r, nth_error rs j = Some r ->
    (reach_vsock im cid port).[j] = covers_vsock p cid port r.
  Proof.
    intros cid port j r R. unfold reach_vsock, covers_vsock.
    apply (covering_rules_bit _ _ j r (fun _ => at_vsock cid port) R). intros n d Hn. rewrite (vsock_bit _ _ Hn). auto.
  Qed.

  (** ** The verdict *)

  Lemma bits_nat : forall a b, (forall i, a.[i] = b.[i]) -> a = b.
  Proof. intros a b H. apply N.bits_inj. intros i. specialize (H (N.to_nat i)). rewrite N2Nat.id in H. exact H. Qed.

  Lemma same_vector : forall v (g : rule -> bool),
    (forall j r, nth_error rs j = Some r -> v.[j] = g r) -> (forall j, nth_error rs j = None -> v.[j] = false) -> v = vector g rs.
  Proof.
    intros v g H O. apply bits_nat. intros j. rewrite vector_spec. destruct (nth_error rs j) eqn:E; auto.
  Qed.

  Lemma action_rules_of : forall a, possible_action a = true -> action_rules im a = vector (fun r => mem a (deny r)) rs.
  Proof.
    intros a H. unfold possible_action in H. apply andb_true_iff in H as [L M]. apply N.ltb_lt in L. apply negb_true_iff in M.
    cbn [mem existsb] in M. rewrite !orb_false_r, !orb_false_iff, !N.eqb_neq in M.
    unfold action_rules. cbn [of_action im image_of]. fold rs. unfold actions_table.
    rewrite (nth_map_error _ _ _ _ (N.to_nat a)).
    - replace (Nat.eqb (N.to_nat a) (N.to_nat LINK)) with false by (symmetry; apply Nat.eqb_neq; unfold LINK; lia).
      replace (Nat.eqb (N.to_nat a) RENAME) with false by (symmetry; apply Nat.eqb_neq; unfold RENAME; lia).
      replace (Nat.eqb (N.to_nat a) PLAIN) with false by (symmetry; apply Nat.eqb_neq; unfold PLAIN; lia).
      cbn [orb]. rewrite N2Nat.id. reflexivity.
    - rewrite nth_error_nth' with (d := O) by (rewrite seq_length; lia). rewrite seq_nth by lia. reflexivity.
  Qed.

  Lemma link_rules : action_rules im LINK = vector (fun r => overlap (deny r) RESOURCES) rs.
  Proof.
    unfold action_rules. cbn [of_action im image_of]. fold rs. unfold actions_table.
    rewrite (nth_map_error _ _ _ _ 14%nat) by reflexivity. change (Nat.eqb 14 (N.to_nat LINK)) with true.
    cbn [orb].
    apply same_vector; intros j.
    - intros r R. rewrite union_map. apply iff_bool. unfold overlap.
      rewrite !existsb_exists. split; intros (a & H1 & H2).
      + rewrite (vector_nth _ _ _ _ R) in H2. exists a. split; apply mem_spec; [exact H2 | exact H1].
      + exists a. rewrite (vector_nth _ _ _ _ R). split; apply mem_spec; [exact H2 | exact H1].
    - intros R. rewrite union_map. apply not_true_iff_false. rewrite existsb_exists.
      intros (a & _ & H). rewrite vector_spec, R in H. discriminate.
  Qed.

  Definition lowest_rule (g : rule -> bool) : option N := rule_name im (lowest (vector g rs)).

  Lemma insert_in : forall r x l, In r (insert x l) <-> r = x \/ In r l.
  Proof.
    induction l as [|y l IH]; cbn [insert]; [cbn; intuition|]. destruct (name x <=? name y); cbn [In]; [intuition|].
    rewrite IH. intuition.
  Qed.

  Lemma sort_in : forall r l, In r (sort l) <-> In r l.
  Proof.
    induction l as [|x l IH]; [reflexivity|]. cbn [sort fold_right]. fold (sort l). rewrite insert_in, IH. cbn. intuition.
  Qed.

  Definition not_after (a b : rule) := name a <= name b.

  Lemma insert_sorted : forall x l, StronglySorted not_after l -> StronglySorted not_after (insert x l).
  Proof.
    induction l as [|y l IH]; intros S; cbn [insert]; [constructor; constructor|].
    apply StronglySorted_inv in S as [S F]. destruct (N.leb_spec (name x) (name y)) as [L|L].
    - constructor; [constructor; assumption|]. constructor; [exact L|]. rewrite Forall_forall in *. intros z Hz.
      specialize (F z Hz). unfold not_after in *. lia.
    - constructor; [exact (IH S)|]. rewrite Forall_forall in *. intros z Hz. apply insert_in in Hz as [->|Hz]; [unfold not_after; lia | auto].
  Qed.

  Lemma sort_sorted : forall l, StronglySorted not_after (sort l).
  Proof. induction l as [|x l IH]; [constructor|]. apply insert_sorted, IH. Qed.

  Lemma sorted_nth : forall l, StronglySorted not_after l -> forall i j a b, nth_error l i = Some a -> nth_error l j = Some b ->
    (i <= j)%nat -> name a <= name b.
  Proof.
    induction 1 as [|x l S IH F]; intros i j a b A B L; [destruct i; discriminate|]. destruct i as [|i], j as [|j]; try lia.
    - cbn in *. replace b with a by congruence. lia.
    - cbn in *. injection A as <-. rewrite Forall_forall in F. exact (F _ (nth_error_In _ _ B)).
    - apply (IH i j); [exact A | exact B | lia].
  Qed.

  Lemma first_spec : forall l n, first l = Some n <-> (exists r, In r l /\ name r = n) /\ forall r, In r l -> n <= name r.
  Proof.
    induction l as [|x l IH]; intros n; cbn [first].
    - split; [discriminate | intros [(r & [] & _) _]].
    - destruct (first l) as [m|] eqn:E.
      + destruct (proj1 (IH m) eq_refl) as [(r & Hr & Nr) Low]. split.
        * intros H. injection H as <-. split.
          -- destruct (N.min_spec (name x) m) as [[L ->]|[L ->]]; [exists x; cbn; auto | exists r; cbn; auto].
          -- intros z [<-|Hz]; [lia | specialize (Low z Hz); lia].
        * intros [(z & [<-|Hz] & <-) Low']; f_equal.
          -- pose proof (Low' r (or_intror Hr)). lia.
          -- pose proof (Low z Hz). pose proof (Low' r (or_intror Hr)). pose proof (Low' x (or_introl eq_refl)). lia.
      + assert (l = []) as -> by (destruct l as [|y l]; [reflexivity | cbn in E; destruct (first l); discriminate]).
        split.
        * intros H. injection H as <-. split; [exists x; cbn; auto | intros z [<-|[]]; lia].
        * intros [(z & [<-|[]] & <-) _]. reflexivity.
  Qed.

  Lemma first_none : forall l, first l = None <-> l = [].
  Proof. intros [|x l]; [tauto|]. cbn. destruct (first l); split; discriminate. Qed.

  Lemma first_same : forall l l', (forall r, In r l <-> In r l') -> first l = first l'.
  Proof.
    intros l l' H. destruct (first l) as [n|] eqn:E.
    - symmetry. apply first_spec. apply first_spec in E as [(r & Hr & N) Low]. split; [exists r; split; [apply H; exact Hr | exact N]|].
      intros z Hz. apply Low, H, Hz.
    - apply first_none in E. subst. symmetry. apply first_none. destruct l' as [|x l']; [reflexivity|].
      destruct (proj2 (H x) (or_introl eq_refl)).
  Qed.

  Lemma lowest_first : forall g, lowest_rule g = first (filter g rs)
    /\ (lowest (vector g rs) = None <-> first (filter g rs) = None).
  Proof.
    intros g. unfold lowest_rule, rule_name. cbn [t_rules im image_of]. fold rs. pose proof (lowest_spec (vector g rs)) as L.
    destruct (lowest (vector g rs)) as [n|].
    - destruct L as [Ln Lo]. rewrite vector_spec in Ln. rewrite nth_error_map. destruct (nth_error rs n) as [r|] eqn:R; [|discriminate].
      assert (F : first (filter g rs) = Some (name r)).
      { apply first_spec. split.
        - exists r. split; [|reflexivity]. apply filter_In. split; [exact (nth_error_In _ _ R) | exact Ln].
        - intros z Hz. apply filter_In in Hz as [Hz G]. apply In_nth_error in Hz as (j & J).
          apply (sorted_nth rs (sort_sorted _) n j _ _ R J). destruct (Nat.le_gt_cases n j) as [|C]; [assumption|].
          specialize (Lo j C). rewrite vector_spec, J, G in Lo. discriminate. }
      rewrite F. split; [reflexivity | split; discriminate].
    - assert (F : filter g rs = []).
      { destruct (filter g rs) as [|z l] eqn:E; [reflexivity|]. assert (Hz : In z (filter g rs)) by (rewrite E; left; reflexivity).
        apply filter_In in Hz as [Hz G]. apply In_nth_error in Hz as (j & J). specialize (L j). rewrite vector_spec, J, G in L. discriminate. }
      rewrite F. cbn. tauto.
  Qed.

  Lemma enforcing_filter : forall g (l : list rule), enforcing (filter g l) = filter (fun r => g r && negb (audit r)) l.
  Proof.
    intros g l. unfold enforcing. induction l as [|r l IH]; [reflexivity|]. cbn [filter]. destruct (g r); cbn [filter andb].
    - destruct (negb (audit r)); rewrite IH; reflexivity.
    - exact IH.
  Qed.

  Lemma judge_first : forall bound_ covers0 act g,
    match covers0 with None => N.land bound_ act | Some c => N.land (N.land bound_ act) c end = vector g rs ->
    match judge im bound_ covers0 act with
    | (Allow, _) => first (filter g rs) = None
    | (Audit, n) => first (enforcing (filter g rs)) = None /\ first (filter g rs) <> None /\ rule_name im n = first (filter g rs)
    | (Deny, n) => first (enforcing (filter g rs)) <> None /\ rule_name im n = first (enforcing (filter g rs))
    end.
  Proof.
    intros bound_ covers0 act g H. unfold judge. cbv zeta.
    replace (match covers0 with Some c => N.land (N.land bound_ act) c | None => N.land bound_ act end) with (vector g rs)
      by (rewrite <- H; destruct covers0; reflexivity).
    assert (D : N.ldiff (vector g rs) (audits im) = vector (fun r => g r && negb (audit r)) rs).
    { cbn [audits im image_of]. fold rs. apply bits_nat. intros j. rewrite ldiff_bit, !vector_spec. destruct (nth_error rs j); reflexivity. }
    rewrite D, enforcing_filter.
    destruct (lowest_first (fun r => g r && negb (audit r))) as [E1 E2]. destruct (lowest_first g) as [G1 G2].
    unfold lowest_rule in *. destruct (lowest (vector (fun r => g r && negb (audit r)) rs)) as [n|].
    - split; [|exact E1]. intros C. apply E2 in C. discriminate.
    - destruct (lowest (vector g rs)) as [m|].
      + split; [apply E2; reflexivity|]. split; [|exact G1]. intros C. apply G2 in C. discriminate.
      + apply G2. reflexivity.
  Qed.

  Lemma judge_none : forall bound_ covers0 act n, judge im bound_ covers0 act = (Allow, n) -> n = None.
  Proof.
    intros bound_ covers0 act n. unfold judge. cbv zeta. destruct (lowest _); [discriminate|]. destruct (lowest _); congruence.
  Qed.

  Definition ruled (e : event) : Prop := match e with Tamper _ _ _ => False | _ => True end.

  Lemma verdict_correct : forall t0 e act covers0, ruled e -> act = vector (tries e) rs ->
    (trouble_of p e = None -> forall j r, nth_error rs j = Some r -> covers0.[j] = Meaning.covers p e r) ->
    verdict_unless im (bound im t0) covers0 act (trouble_of p e) = decide p today t0 e.
  Proof.
    intros t0 e act covers0 Re -> C. unfold verdict_unless, verdict_by.
    set (g := fun r => tries e r && (binds p t0 r && negb (excepted p t0 r))
                       && match trouble_of p e with Some _ => true | None => Meaning.covers p e r end).
    assert (H : match (match trouble_of p e with Some _ => None | None => Some covers0 end) with
                | None => N.land (bound im t0) (vector (tries e) rs)
                | Some c => N.land (N.land (bound im t0) (vector (tries e) rs)) c end = vector g rs).
    { apply same_vector; intros j.
      - intros r R. unfold g. destruct (trouble_of p e).
        + rewrite land_bit, (bound_bit _ _ _ R), (vector_nth _ _ _ _ R). btauto.
        + rewrite !land_bit, (bound_bit _ _ _ R), (vector_nth _ _ _ _ R), (C eq_refl _ _ R). btauto.
      - intros R. destruct (trouble_of p e); rewrite !land_bit, (vector_spec (tries e)), R, andb_false_r; reflexivity. }
    assert (S : forall r, In r (filter (hit p today t0 e) (rules p)) <-> In r (filter g rs)).
    { intros r. rewrite !filter_In. unfold rs, in_order. rewrite sort_in, filter_In. unfold hit, g.
      rewrite !andb_true_iff. tauto. }
    assert (S' : forall r, In r (enforcing (filter (hit p today t0 e) (rules p))) <-> In r (enforcing (filter g rs))).
    { intros r. unfold enforcing. rewrite !(filter_In (fun r => negb (audit r))), S. tauto. }
    assert (D : decide p today t0 e = match first (enforcing (filter g rs)), first (filter g rs) with
      | Some n, _ => Verdict Deny (Some n) (match trouble_of p e with Some r => r | None => BY_RULE end)
      | None, Some n => Verdict Audit (Some n) (match trouble_of p e with Some r => r | None => BY_RULE end)
      | None, None => allowed end).
    { rewrite <- (first_same _ _ S), <- (first_same _ _ S'). destruct e; try destruct Re; reflexivity. }
    rewrite D. pose proof (judge_first _ _ _ _ H) as J. destruct (judge im _ _ _) as [[] n].
    - rewrite J. assert (first (enforcing (filter g rs)) = None) as ->; [|reflexivity].
      apply first_none in J. rewrite J. reflexivity.
    - destruct J as (-> & J2 & ->). destruct (first (filter g rs)); [reflexivity | congruence].
    - destruct J as (J1 & ->). destruct (first (enforcing (filter g rs))); [reflexivity | congruence].
  Qed.

  Lemma touches_correct : forall at_ below, touches im at_ below = match at_ with None => true | Some w => is_protected p w below end.
  Proof.
    intros [w|] below; [|reflexivity]. unfold touches, is_protected. rewrite <- place_trouble.
    destruct (place im w) as [n [r|]] eqn:P; cbn [snd]; [reflexivity|].
    assert (T : snd (place im w) = None) by (rewrite P; reflexivity).
    destruct below; cbn [c_reaches c_covers im image_of].
    - destruct (reaches_at w T) as [_ Q]. rewrite P in Q. exact Q.
    - destruct (covers_at w T) as [_ Q]. rewrite P in Q. exact Q.
  Qed.

  Lemma denies_correct : denies_labels im = labels_deny p today.
  Proof.
    unfold labels_deny, asks_for_labels, some_named. cbn [denies_labels im image_of]. fold rs.
    apply iff_bool. rewrite !existsb_exists. split.
    - intros (r & R & E). exists r. apply andb_true_iff in E as [E1 E2]. unfold rs, in_order in R.
      apply sort_in, filter_In in R as [R F]. split; [exact R|]. rewrite F, E1. cbn [andb].
      apply existsb_exists in E2 as (s & S & E2). destruct (subjects r) as [l|]; [|discriminate].
      apply existsb_exists. exists s. split; [exact S|]. unfold absent in E2. destruct (has_read (snd s)); exact E2.
    - intros (r & R & E). exists r. apply andb_true_iff in E as [E E2]. apply andb_true_iff in E as [F E1].
      unfold rs, in_order. rewrite sort_in, filter_In, E1. split; [auto|]. cbn [andb].
      destruct (subjects r) as [l|]; [|discriminate]. apply existsb_exists in E2 as (s & S & E2).
      apply existsb_exists. exists s. split; [exact S|]. unfold absent. destruct (has_read (snd s)); exact E2.
  Qed.

  Lemma tampering_correct : forall t0 root at_ below,
    lookup_tampering im t0 root at_ below = tampering p today t0 root at_ below.
  Proof.
    intros t0 root at_ below. unfold lookup_tampering, tampering. rewrite touches_correct.
    destruct (match at_ with None => true | Some w => is_protected p w below end); [|reflexivity].
    set (g := fun r => match subjects r with None => false | Some _ => true end && (binds p t0 r && negb (excepted p t0 r))).
    assert (H : N.land (bound im t0) (named im) = vector g rs).
    { cbn [named im image_of]. fold im rs. apply same_vector; intros j.
      - intros r R. rewrite land_bit, (bound_bit _ _ _ R), (vector_nth _ _ _ _ R). unfold g, absent.
        destruct (subjects r); cbn; btauto.
      - intros R. rewrite land_bit, (vector_spec _ rs), R, andb_false_r. reflexivity. }
    assert (S : forall r, In r (filter (named_hit p today t0) (rules p)) <-> In r (filter g rs)).
    { intros r. rewrite !filter_In. unfold rs, in_order. rewrite sort_in, filter_In. unfold named_hit, g.
      rewrite !andb_true_iff. tauto. }
    assert (S' : forall r, In r (enforcing (filter (named_hit p today t0) (rules p))) <-> In r (enforcing (filter g rs))).
    { intros r. unfold enforcing. rewrite !(filter_In (fun r => negb (audit r))), S. tauto. }
    rewrite (first_same _ _ S), (first_same _ _ S'), denies_correct.
    pose proof (judge_first (bound im t0) None (named im) g H) as J.
    pose proof (judge_none (bound im t0) None (named im)) as Z. destruct (judge im _ _ _) as [[] n].
    - rewrite (Z n eq_refl), J. assert (first (enforcing (filter g rs)) = None) as ->; [|reflexivity].
      apply first_none in J. rewrite J. reflexivity.
    - destruct J as (-> & J2 & ->). destruct (first (filter g rs)); [reflexivity | congruence].
    - destruct J as (J1 & ->). destruct (first (enforcing (filter g rs))); [reflexivity | congruence].
  Qed.

  Theorem lookup_correct : forall t0 e, possible_event e = true -> lookup im t0 e = decide p today t0 e.
  Proof.
    intros t0 e E. destruct e as [action w|source target_ directory|action to port protocol trouble|cid port|action|root at_ below];
      cbn [lookup possible_event] in *.
    - pose proof (place_trouble w) as T. destruct (place im w) as [n tr] eqn:P. cbn [snd] in T. subst tr.
      apply (verdict_correct t0 (File action w)); [exact I | apply action_rules_of; exact E |].
      cbn [trouble_of Meaning.covers]. intros T j r R. destruct (covers_at w) as [Q _]; [rewrite place_trouble; exact T|].
      rewrite P in Q. exact (Q _ _ R).
    - pose proof (place_trouble source) as T1. pose proof (place_trouble target_) as T2.
      destruct (place im source) as [old tr1] eqn:P1. destruct (place im target_) as [new tr2] eqn:P2. cbn [snd] in T1, T2. subst tr1 tr2.
      apply (verdict_correct t0 (Alias source target_ directory)); [exact I | exact link_rules |].
      cbn [trouble_of Meaning.covers]. intros T j r R.
      destruct (trouble_at p source) eqn:T1; [discriminate|]. cbn [or_else] in T.
      assert (A1 : snd (place im source) = None) by (rewrite P1; reflexivity).
      assert (A2 : snd (place im target_) = None) by (rewrite P2; exact T).
      unfold moved, covers_alias. rewrite lor_bit, land_bit, !ldiff_bit.
      rewrite (action_rules_of WRITE) by reflexivity. rewrite (vector_nth _ _ _ _ R).
      destruct directory; cbn [c_reaches c_pervades c_covers im image_of]; fold im.
      + destruct (reaches_at source A1) as [Q1 _]. destruct (reaches_at target_ A2) as [Q2 _].
        pose proof (pervades_at source j r A1 R) as Q3. pose proof (pervades_at target_ j r A2 R) as Q4.
        specialize (Q1 _ _ R). specialize (Q2 _ _ R). rewrite P1 in Q1, Q3. rewrite P2 in Q2, Q4. cbn [fst] in *.
        rewrite Q1, Q2, Q3, Q4. btauto.
      + destruct (covers_at source A1) as [Q1 _]. destruct (covers_at target_ A2) as [Q2 _].
        specialize (Q1 _ _ R). specialize (Q2 _ _ R). rewrite P1 in Q1. rewrite P2 in Q2. cbn [fst] in *.
        fold rs covers_. rewrite Q1, Q2. btauto.
    - apply andb_true_iff in E as [E X]. apply N.ltb_lt in X.
      apply (verdict_correct t0 (Network action to port protocol trouble)); [exact I | apply action_rules_of; exact E |].
      intros _ j r R. apply endpoint_rule; assumption.
    - apply (verdict_correct t0 (Vsock cid port)); [exact I | apply action_rules_of; reflexivity |].
      intros _ j r R. apply vsock_rule. exact R.
    - change (verdict_by im (bound im t0) None (action_rules im action) None = decide p today t0 (Plain action)).
      rewrite <- (verdict_correct t0 (Plain action) (action_rules im action) (vector (fun _ => true) rs));
        [|exact I | apply action_rules_of; exact E | intros _ j r R; exact (vector_nth _ _ _ _ R)].
      unfold verdict_unless, trouble_of, verdict_by, judge.
      replace (N.land (N.land (bound im t0) (action_rules im action)) (vector (fun _ => true) rs))
        with (N.land (bound im t0) (action_rules im action)); [reflexivity|].
      apply bits_nat. intros j. rewrite !land_bit, action_rules_of, !vector_spec by exact E.
      destruct (nth_error rs j); [rewrite andb_true_r | rewrite !andb_false_r]; reflexivity.
    - apply tampering_correct.
  Qed.

End Correct.

(** Deciding over the compiled tables equals the meaning, for every policy and every event. *)
Theorem compile_correct : forall fuel bits p today im, valid bits p = true -> compile fuel bits p today = Some im ->
  forall t e, possible_event e = true -> lookup im t e = decide p today t e.
Proof.
  intros fuel bits p today im V C t e E. unfold compile in C. destruct (build fuel (roots p)) as [[nodes ns]|] eqn:B; [|discriminate].
  destruct (settle nodes N.lor fuel _) as [some|] eqn:S1; [|discriminate].
  destruct (settle nodes N.land fuel _) as [every|] eqn:S2; [|discriminate]. injection C as <-.
  apply (lookup_correct fuel); assumption.
Qed.
