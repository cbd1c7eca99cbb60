(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** What the kernel finds in the tables is what the policy means. *)

From Coq Require Import NArith List Bool Lia Arith Permutation Sorted.
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

  (** ** Where an object is *)

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

End Correct.
