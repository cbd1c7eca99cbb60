(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** Vectors of bits, tables whose entries are combined by OR, and lookups of the longest prefix. *)

From Coq Require Import NArith List Bool Lia Arith.
Import ListNotations.
Open Scope N_scope.

Notation "v .[ i ]" := (N.testbit v (N.of_nat i)) (at level 5, format "v .[ i ]").

Definition bit (i : nat) : N := N.shiftl 1 (N.of_nat i).

Lemma bit_spec : forall i j, (bit i).[j] = Nat.eqb i j.
Proof.
  intros. unfold bit. rewrite N.shiftl_1_l, N.pow2_bits_eqb.
  destruct (Nat.eqb_spec i j) as [->|H]; [apply N.eqb_refl | apply N.eqb_neq; lia].
Qed.

Lemma lor_bit : forall a b i, (N.lor a b).[i] = a.[i] || b.[i]. Proof. intros; apply N.lor_spec. Qed.
Lemma land_bit : forall a b i, (N.land a b).[i] = a.[i] && b.[i]. Proof. intros; apply N.land_spec. Qed.
Lemma ldiff_bit : forall a b i, (N.ldiff a b).[i] = a.[i] && negb b.[i]. Proof. intros; apply N.ldiff_spec. Qed.
Lemma shiftr_bit : forall a n i, (N.shiftr a (N.of_nat n)).[i] = a.[n + i].
Proof. intros. rewrite N.shiftr_spec by lia. f_equal. lia. Qed.
Lemma zero_bit : forall i, (0).[i] = false. Proof. intros; apply N.bits_0. Qed.

Lemma iff_bool : forall a b : bool, (a = true <-> b = true) -> a = b.
Proof. intros [] [] H; try reflexivity; destruct H as [H1 H2]; [symmetry; auto | auto]. Qed.

(** * The vector of the elements that satisfy a test: compile._bits *)

Section Vector.
  Context {A : Type}.
  Fixpoint vector (wanted : A -> bool) (l : list A) : N :=
    match l with [] => 0 | x :: l' => 2 * vector wanted l' + N.b2n (wanted x) end.

  Lemma vector_spec : forall f l i, (vector f l).[i] = match nth_error l i with Some x => f x | None => false end.
  Proof.
    induction l as [|x l IH]; intros [|i].
    - reflexivity.
    - apply zero_bit.
    - cbn [vector nth_error]. apply N.testbit_0_r.
    - cbn [vector nth_error]. rewrite Nat2N.inj_succ, N.testbit_succ_r. apply IH.
  Qed.

  Lemma vector_nth : forall f l i x, nth_error l i = Some x -> (vector f l).[i] = f x.
  Proof. intros f l i x H. rewrite vector_spec, H. reflexivity. Qed.
End Vector.

(** * The union of the rows that a mask selects *)

Fixpoint select (mask : N) (rows : list N) : N :=
  match rows with
  | [] => 0
  | v :: rows' => N.lor (if N.odd mask then v else 0) (select (N.div2 mask) rows')
  end.

Lemma select_spec : forall rows mask j,
  (select mask rows).[j] = true <-> exists i v, nth_error rows i = Some v /\ mask.[i] = true /\ v.[j] = true.
Proof.
  induction rows as [|v rows IH]; intros mask j; cbn [select].
  - rewrite zero_bit. split; [discriminate | intros ([|i] & w & H & _); discriminate].
  - rewrite lor_bit, orb_true_iff, IH. split.
    + intros [H | (i & w & Hw & Hm & Hj)].
      * exists 0%nat, v. rewrite <- N.bit0_odd in H. cbn [N.of_nat].
        destruct (N.testbit mask 0); [auto | rewrite zero_bit in H; discriminate].
      * exists (S i), w. rewrite Nat2N.inj_succ. rewrite N.div2_spec, N.shiftr_spec in Hm by lia.
        rewrite <- N.add_1_r. auto.
    + intros ([|i] & w & Hw & Hm & Hj).
      * left. injection Hw as ->. rewrite <- N.bit0_odd. cbn [N.of_nat] in Hm. rewrite Hm. exact Hj.
      * right. exists i, w. rewrite N.div2_spec, N.shiftr_spec by lia.
        rewrite Nat2N.inj_succ, <- N.add_1_r in Hm. auto.
Qed.

Lemma select_map : forall {A} (l : list A) (f : A -> N) mask j,
  (select mask (map f l)).[j] = true <-> exists i x, nth_error l i = Some x /\ mask.[i] = true /\ (f x).[j] = true.
Proof.
  intros. rewrite select_spec. split.
  - intros (i & v & Hn & Hm & Hj). rewrite nth_error_map in Hn.
    destruct (nth_error l i) as [x|] eqn:E; [|discriminate]. injection Hn as <-. eauto.
  - intros (i & x & Hn & Hm & Hj). exists i, (f x). rewrite nth_error_map, Hn. auto.
Qed.

(** * Unions and intersections of masks *)

Definition union (ms : list N) : N := fold_right N.lor 0 ms.
Definition common (start : N) (ms : list N) : N := fold_right N.land start ms.

Lemma union_spec : forall ms i, (union ms).[i] = existsb (fun m => m.[i]) ms.
Proof.
  unfold union; induction ms as [|m ms IH]; intros; cbn [fold_right existsb]; [apply zero_bit | rewrite lor_bit, IH; reflexivity].
Qed.
Lemma common_spec : forall ms start i, (common start ms).[i] = start.[i] && forallb (fun m => m.[i]) ms.
Proof.
  unfold common; induction ms as [|m ms IH]; intros; cbn [fold_right forallb]; [rewrite andb_true_r; reflexivity |].
  rewrite land_bit, IH. destruct m.[i], start.[i]; reflexivity.
Qed.

(** * Tables: entries with the same key are combined by OR *)

Section Table.
  Context {K : Type} (same : forall a b : K, {a = b} + {a <> b}).

  Fixpoint put (k : K) (m : N) (t : list (K * N)) : list (K * N) :=
    match t with
    | [] => [(k, m)]
    | (k', m') :: t' => if same k k' then (k', N.lor m' m) :: t' else (k', m') :: put k m t'
    end.
  Definition table (entries : list (K * N)) : list (K * N) := fold_left (fun t e => put (fst e) (snd e) t) entries [].
  Fixpoint get (k : K) (t : list (K * N)) : option N :=
    match t with [] => None | (k', m) :: t' => if same k k' then Some m else get k t' end.
  Definition mask (k : K) (t : list (K * N)) : N := match get k t with Some m => m | None => 0 end.

  (** Some entry of a key that satisfies [good] has bit [i]. *)
  Definition has (good : K -> Prop) (t : list (K * N)) (i : nat) := exists k m, In (k, m) t /\ good k /\ m.[i] = true.

  Lemma has_put : forall good t k m i, has good (put k m t) i <-> (good k /\ m.[i] = true) \/ has good t i.
  Proof.
    unfold has; induction t as [|[k' m'] t IH]; intros k m i; cbn [put].
    - split.
      + intros (k0 & m0 & [H|[]] & Hg & Hi). injection H as <- <-. auto.
      + intros [[Hg Hi] | (k0 & m0 & [] & _)]. exists k, m. cbn; auto.
    - destruct (same k k') as [<-|Hne].
      + split.
        * intros (k0 & m0 & [H|H] & Hg & Hi).
          -- injection H as <- <-. rewrite lor_bit in Hi. apply orb_true_iff in Hi as [Hi|Hi]; [right|left]; auto.
             exists k, m'. cbn; auto.
          -- right. exists k0, m0. cbn; auto.
        * intros [[Hg Hi] | (k0 & m0 & [H|H] & Hg & Hi)].
          -- exists k, (N.lor m' m). rewrite lor_bit, Hi, orb_true_r. cbn; auto.
          -- injection H as <- <-. exists k, (N.lor m' m). rewrite lor_bit, Hi. cbn; auto.
          -- exists k0, m0. cbn; auto.
      + split.
        * intros (k0 & m0 & [H|H] & Hg & Hi).
          -- right. exists k0, m0. cbn; auto.
          -- destruct (proj1 (IH k m i)) as [?|(k1 & m1 & ? & ? & ?)]; [exists k0, m0; auto | auto |].
             right. exists k1, m1. cbn; auto.
        * intros [[Hg Hi] | (k0 & m0 & [H|H] & Hg & Hi)].
          -- destruct (proj2 (IH k m i)) as (k1 & m1 & ? & ? & ?); [left; auto|]. exists k1, m1. cbn; auto.
          -- exists k0, m0. cbn; auto.
          -- destruct (proj2 (IH k m i)) as (k1 & m1 & ? & ? & ?); [right; exists k0, m0; auto|].
             exists k1, m1. cbn; auto.
  Qed.

  Lemma has_fold : forall good entries t i,
    has good (fold_left (fun t e => put (fst e) (snd e) t) entries t) i <-> has good entries i \/ has good t i.
  Proof.
    induction entries as [|[k m] entries IH]; intros t i; cbn [fold_left].
    - split; [auto | intros [(k & m & [] & _)|H]; exact H].
    - rewrite IH, has_put. cbn [fst snd]. unfold has. split.
      + intros [(k0 & m0 & H & Hg & Hi) | [[Hg Hi]|H]]; [left; exists k0, m0; cbn; auto | left; exists k, m; cbn; auto | auto].
      + intros [(k0 & m0 & [H|H] & Hg & Hi) | H]; [injection H as <- <-; auto | left; exists k0, m0; auto | auto].
  Qed.

  Lemma has_table : forall good entries i, has good (table entries) i <-> has good entries i.
  Proof.
    intros. unfold table. rewrite has_fold. split; [intros [H|(k & m & [] & _)]; exact H | auto].
  Qed.

  Lemma get_put : forall t k m k', get k' (put k m t) =
    if same k' k then Some (match get k t with Some old => N.lor old m | None => m end) else get k' t.
  Proof.
    induction t as [|[k0 m0] t IH]; intros k m k'; cbn [put get].
    - destruct (same k' k); reflexivity.
    - destruct (same k k0) as [<-|Hne]; cbn [get].
      + destruct (same k' k); reflexivity.
      + rewrite IH. destruct (same k' k0) as [->|]; [|reflexivity].
        destruct (same k0 k); [congruence | reflexivity].
  Qed.

  Lemma mask_fold : forall entries t k i,
    (mask k (fold_left (fun t e => put (fst e) (snd e) t) entries t)).[i] = true
    <-> has (eq k) entries i \/ (mask k t).[i] = true.
  Proof.
    induction entries as [|[k0 m0] entries IH]; intros t k i; cbn [fold_left].
    - split; [auto | intros [(k1 & m1 & [] & _)|H]; exact H].
    - rewrite IH. cbn [fst snd]. unfold mask at 1. rewrite get_put. unfold has. destruct (same k k0) as [<-|Hne].
      + unfold mask. split.
        * intros [(k1 & m1 & H & Hg & Hi) | H].
          -- left. exists k1, m1. cbn; auto.
          -- destruct (get k t) as [old|].
             ++ rewrite lor_bit in H. apply orb_true_iff in H as [H|H]; [auto|]. left. exists k, m0. cbn; auto.
             ++ left. exists k, m0. cbn; auto.
        * intros [(k1 & m1 & [H|H] & Hg & Hi) | H].
          -- injection H as <- <-. right. destruct (get k t); [rewrite lor_bit, Hi, orb_true_r; reflexivity | exact Hi].
          -- left. exists k1, m1. auto.
          -- right. destruct (get k t); [rewrite lor_bit, H; reflexivity | rewrite zero_bit in H; discriminate].
      + change (match get k t with Some m => m | None => 0 end) with (mask k t). split.
        * intros [(k1 & m1 & H & Hg & Hi) | H]; [left; exists k1, m1; cbn; auto | auto].
        * intros [(k1 & m1 & [H|H] & Hg & Hi) | H]; [injection H as <- <-; congruence | left; exists k1, m1; auto | auto].
  Qed.

  Lemma mask_table : forall entries k i, (mask k (table entries)).[i] = true <-> has (eq k) entries i.
  Proof.
    intros. unfold table. rewrite mask_fold. unfold mask at 1. cbn [get]. rewrite zero_bit. intuition discriminate.
  Qed.

  Lemma get_none : forall entries k, get k (table entries) = None <-> ~ In k (map fst entries).
  Proof.
    intros entries k. unfold table.
    assert (G : forall t, get k (fold_left (fun t e => put (fst e) (snd e) t) entries t) = None
                          <-> ~ In k (map fst entries) /\ get k t = None).
    { induction entries as [|[k0 m0] entries IH]; intros t; cbn [fold_left map].
      - cbn; tauto.
      - rewrite IH, get_put. cbn [fst snd In]. destruct (same k k0) as [<-|]; [intuition discriminate | intuition]. }
    rewrite G. cbn. tauto.
  Qed.
End Table.

(** * The longest prefix: an entry carries the sets of all its ancestors *)

Section Prefix.
  Context {A : Type} (same : forall a b : A, {a = b} + {a <> b}).
  Definition same_list := list_eq_dec same.

  Definition closed (own : list (list A * N)) : list (list A * N) :=
    map (fun e => (fst e, union (map (fun n => mask same_list (firstn n (fst e)) own) (seq 0 (S (length (fst e))))))) own.

  (** [n]: prefixes up to that length. *)
  Fixpoint longest (n : nat) (a : list A) (t : list (list A * N)) : N :=
    match get same_list (firstn n a) t with
    | Some m => m
    | None => match n with O => 0 | S n' => longest n' a t end
    end.

  Lemma get_closed : forall own k, get same_list k (closed own) =
    match get same_list k own with
    | None => None
    | Some _ => Some (union (map (fun n => mask same_list (firstn n k) own) (seq 0 (S (length k)))))
    end.
  Proof.
    intros own k. unfold closed.
    set (f := fun l : list A => union (map (fun n => mask same_list (firstn n l) own) (seq 0 (S (length l))))).
    change (get same_list k (map (fun e => (fst e, f (fst e))) own)
            = match get same_list k own with None => None | Some _ => Some (f k) end).
    clearbody f. induction own as [|[k0 m0] own IH]; [reflexivity|].
    cbn [map get fst]. destruct (same_list k k0) as [<-|]; [reflexivity | exact IH].
  Qed.

  Lemma longest_spec : forall entries a n i, (n <= length a)%nat ->
    (longest n a (closed (table same_list entries))).[i] = true
    <-> has (fun k => exists l, (l <= n)%nat /\ firstn l a = k) entries i.
  Proof.
    intros entries a n i. induction n as [|n IH]; intros Hn; cbn [longest]; rewrite get_closed.
    - cbn [firstn]. destruct (get same_list [] (table same_list entries)) as [m|] eqn:E.
      + cbn [length seq map firstn union fold_right]. rewrite lor_bit, zero_bit, orb_false_r, mask_table. split.
        * intros (k & m0 & H & <- & Hi). exists [], m0. repeat split; auto. exists 0%nat. auto.
        * intros (k & m0 & H & (l & Hl & <-) & Hi). exists [], m0. replace l with 0%nat in H by lia. auto.
      + apply get_none in E. rewrite zero_bit. split; [discriminate|].
        intros (k & m0 & H & (l & Hl & <-) & Hi). replace l with 0%nat in H by lia.
        exfalso. apply E. apply (in_map fst) in H. exact H.
    - destruct (get same_list (firstn (S n) a) (table same_list entries)) as [m|] eqn:E.
      + rewrite union_spec, existsb_exists. split.
        * intros (x & Hx & Hi). apply in_map_iff in Hx as (l & <- & Hl). apply in_seq in Hl.
          rewrite firstn_length in Hl. apply mask_table in Hi as (k & m0 & H & <- & Hi).
          exists (firstn l (firstn (S n) a)), m0. repeat split; auto. exists l. split; [lia|].
          rewrite firstn_firstn. f_equal. lia.
        * intros (k & m0 & H & (l & Hl & <-) & Hi).
          exists (mask same_list (firstn l (firstn (S n) a)) (table same_list entries)). split.
          -- apply in_map_iff. exists l. split; [reflexivity|]. apply in_seq. rewrite firstn_length. lia.
          -- rewrite mask_table. exists (firstn l a), m0. repeat split; auto.
             rewrite firstn_firstn. f_equal. lia.
      + rewrite IH by lia. apply get_none in E. split; intros (k & m0 & H & (l & Hl & <-) & Hi).
        * exists (firstn l a), m0. repeat split; auto. exists l. split; [lia | reflexivity].
        * exists (firstn l a), m0. repeat split; auto. exists l. split; [|reflexivity].
          destruct (Nat.eq_dec l (S n)) as [->|]; [|lia]. exfalso. apply E. apply (in_map fst) in H. exact H.
  Qed.

End Prefix.

(** * The entries of sets, each with its own bit *)

Section Keyed.
  Context {S K : Type}.
  Fixpoint keyed_from (i : nat) (keys : S -> list K) (sets : list S) : list (K * N) :=
    match sets with
    | [] => []
    | s :: sets' => map (fun k => (k, bit i)) (keys s) ++ keyed_from (Datatypes.S i) keys sets'
    end.

  Lemma keyed_spec : forall (good : K -> Prop) keys sets from i,
    has good (keyed_from from keys sets) i
    <-> exists n s k, nth_error sets n = Some s /\ i = (from + n)%nat /\ In k (keys s) /\ good k.
  Proof.
    induction sets as [|s sets IH]; intros from i; cbn [keyed_from].
    - split; [intros (k & m & [] & _) | intros ([|n] & s & k & H & _); discriminate].
    - split.
      + intros (k & m & H & Hg & Hi). apply in_app_iff in H as [H|H].
        * apply in_map_iff in H as (k' & H & Hk). injection H as <- <-. rewrite bit_spec in Hi.
          apply Nat.eqb_eq in Hi. exists 0%nat, s, k'. cbn. repeat split; auto; lia.
        * destruct (proj1 (IH (Datatypes.S from) i)) as (n & s0 & k0 & Hn & -> & Hk & Hg0); [exists k, m; auto|].
          exists (Datatypes.S n), s0, k0. cbn. repeat split; auto; lia.
      + intros ([|n] & s0 & k & Hn & -> & Hk & Hg).
        * injection Hn as <-. exists k, (bit from). repeat split; auto.
          -- apply in_app_iff. left. apply in_map_iff. eauto.
          -- rewrite bit_spec. apply Nat.eqb_eq. lia.
        * destruct (proj2 (IH (Datatypes.S from) (from + Datatypes.S n)%nat)) as (k1 & m1 & H & Hg1 & Hi).
          -- exists n, s0, k. split; [exact Hn | split; [lia | auto]].
          -- exists k1, m1. split; [apply in_app_iff; auto | auto].
  Qed.

  Lemma keyed_bit : forall (good : K -> Prop) keys sets n s, nth_error sets n = Some s ->
    has good (keyed_from 0 keys sets) n <-> exists k, In k (keys s) /\ good k.
  Proof.
    intros good keys sets n s H. rewrite keyed_spec. split.
    - intros (n0 & s0 & k & Hn & -> & Hk & Hg). cbn in H. rewrite Hn in H. injection H as <-. eauto.
    - intros (k & Hk & Hg). exists n, s, k. auto.
  Qed.
End Keyed.

(** * The lowest bit: decide.h, guard_lowest *)

Fixpoint lowest_of (p : positive) : nat :=
  match p with xI _ => O | xH => O | xO p' => S (lowest_of p') end.
Definition lowest (v : N) : option nat := match v with N0 => None | Npos p => Some (lowest_of p) end.

Lemma lowest_spec : forall v, match lowest v with
  | None => forall i, v.[i] = false
  | Some n => v.[n] = true /\ forall i, (i < n)%nat -> v.[i] = false end.
Proof.
  intros [|p]; cbn [lowest]; [apply zero_bit|].
  induction p as [p IH|p IH|]; cbn [lowest_of].
  - split; [reflexivity | lia].
  - destruct IH as [H1 H2]. change (N.pos p~0) with (2 * N.pos p). split.
    + rewrite Nat2N.inj_succ, N.testbit_even_succ by lia. exact H1.
    + intros [|i] Hi; [reflexivity|]. rewrite Nat2N.inj_succ, N.testbit_even_succ by lia. apply H2. lia.
  - split; [reflexivity | lia].
Qed.
