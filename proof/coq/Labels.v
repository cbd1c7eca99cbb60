(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(** How labels spread, as in bpf/label/flow.h: by the operations of tasks that a hook mediates. Operations without a hook
    are not steps of this model; docs/mediation.md lists them. *)

From Coq Require Import NArith List Bool.
Import ListNotations.
Open Scope N_scope.

(** Labels as bits of a number, by task, and by place: a pipe, a socket, a file, shared memory, a queue. Tasks that
    share an address space are one task here: they share their labels. *)
Record world := World { of_task : N -> N; of_place : N -> N; waits_at : N -> N -> bool  (* at a place, a task *) }.

Inductive step :=
| Reads (t given : N)     (* opens, maps, executes or receives a resource with these labels *)
| Forks (t child : N)     (* creates the child *)
| Executes (t : N)        (* another program and address space, the same task *)
| Writes (t place : N)
| Receives (t place : N)  (* reads from there *)
| Waits (t place : N)     (* the same, and receives what is written there later without another call *)
| Debugs (t other : N).   (* in both directions *)

Definition put (f : N -> N) (n labels : N) : N -> N := fun m => if m =? n then labels else f m.
Definition add (f : N -> N) (n labels : N) : N -> N := put f n (N.lor (f n) labels).

Definition wait (f : N -> N -> bool) (p t : N) : N -> N -> bool := fun q m => f q m || (q =? p) && (m =? t).

Definition after (s : step) (w : world) : world :=
  match s with
  | Reads t given => World (add (of_task w) t given) (of_place w) (waits_at w)
  | Forks t child => World (put (of_task w) child (of_task w t)) (of_place w) (waits_at w)
  | Executes _ => w
  | Writes t p => World (fun m => if waits_at w p m then N.lor (of_task w m) (of_task w t) else of_task w m)
                        (add (of_place w) p (of_task w t)) (waits_at w)
  | Receives t p => World (add (of_task w) t (of_place w p)) (of_place w) (waits_at w)
  | Waits t p => World (add (of_task w) t (of_place w p)) (of_place w) (wait (waits_at w) p t)
  | Debugs t u => let both := N.lor (of_task w t) (of_task w u) in
                  World (add (add (of_task w) t both) u both) (of_place w) (waits_at w)
  end.

Definition run (l : list step) (w : world) : world := fold_left (fun w s => after s w) l w.

Definition begins (t : N) (s : step) : bool := match s with Forks _ child => child =? t | _ => false end.

(** * Labels only grow *)

Lemma add_grows : forall f n x m i, N.testbit (f m) i = true -> N.testbit (add f n x m) i = true.
Proof.
  intros f n x m i H. unfold add, put. destruct (N.eqb_spec m n) as [<-|_]; [|exact H].
  rewrite N.lor_spec, H. reflexivity.
Qed.

Lemma add_has : forall f n x i, N.testbit x i = true -> N.testbit (add f n x n) i = true.
Proof. intros f n x i H. unfold add, put. rewrite N.eqb_refl, N.lor_spec, H. apply orb_true_r. Qed.

Lemma after_grows : forall s w t i, begins t s = false -> N.testbit (of_task w t) i = true ->
  N.testbit (of_task (after s w) t) i = true.
Proof.
  intros [u g|u c|u|u p|u p|u p|u v] w t i B H; cbn [after of_task begins] in *; auto using add_grows.
  - unfold put. rewrite N.eqb_sym, B. exact H.
  - destruct (waits_at w p t); [rewrite N.lor_spec, H; reflexivity | exact H].
Qed.

Lemma place_grows : forall s w p i, N.testbit (of_place w p) i = true -> N.testbit (of_place (after s w) p) i = true.
Proof. intros [] w p i H; cbn [after of_place]; auto using add_grows. Qed.

(** From a task's creation to its exit, whatever it and others do. *)
Theorem labels_only_grow : forall l w t i, existsb (begins t) l = false -> N.testbit (of_task w t) i = true ->
  N.testbit (of_task (run l w) t) i = true.
Proof.
  induction l as [|s l IH]; intros w t i B H; [exact H|]. cbn [existsb] in B. apply orb_false_iff in B as [B1 B2].
  apply IH; [exact B2|]. apply after_grows; assumption.
Qed.

(** * Every task that receives labelled data carries the label *)

(** Which tasks hold the data and where it is stored, defined without labels. *)
Record spread := Spread { has : N -> Prop; lies : N -> Prop }.

Definition passes (i : N) (w : world) (s : step) (d : spread) : spread :=
  match s with
  | Reads t given => Spread (fun m => has d m \/ m = t /\ N.testbit given i = true) (lies d)
  | Forks t child => Spread (fun m => if m =? child then has d t else has d m) (lies d)
  | Executes _ => d
  | Writes t p => Spread (fun m => has d m \/ waits_at w p m = true /\ has d t) (fun m => lies d m \/ m = p /\ has d t)
  | Receives t p | Waits t p => Spread (fun m => has d m \/ m = t /\ lies d p) (lies d)
  | Debugs t u => Spread (fun m => has d m \/ (m = t \/ m = u) /\ (has d t \/ has d u)) (lies d)
  end.

Definition told (i : N) (w : world) (d : spread) : Prop :=
  (forall t, has d t -> N.testbit (of_task w t) i = true) /\ (forall p, lies d p -> N.testbit (of_place w p) i = true).

Lemma told_after : forall i s w d, told i w d -> told i (after s w) (passes i w s d).
Proof.
  intros i [u g|u c|u|u p|u p|u p|u v] w d [T P]; split; intros m H; cbn in H |- *; auto.
  - destruct H as [H|[-> H]]; auto using add_grows, add_has.
  - unfold put. destruct (m =? c); auto.
  - destruct H as [H|[W H]]; [|rewrite W, N.lor_spec, (T _ H); apply orb_true_r].
    destruct (waits_at w p m); [rewrite N.lor_spec, (T _ H); reflexivity | auto].
  - destruct H as [H|[-> H]]; auto using add_grows, add_has.
  - destruct H as [H|[-> H]]; auto using add_grows, add_has.
  - destruct H as [H|[-> H]]; auto using add_grows, add_has.
  - destruct H as [H|[W H]]; [auto using add_grows|].
    assert (B : N.testbit (N.lor (of_task w u) (of_task w v)) i = true).
    { rewrite N.lor_spec. destruct H as [H|H]; rewrite (T _ H); [reflexivity | apply orb_true_r]. }
    destruct W as [->| ->]; auto using add_grows, add_has.
Qed.

Definition nobody : spread := Spread (fun _ => False) (fun _ => False).

Fixpoint spread_by (i : N) (l : list step) (w : world) (d : spread) : spread :=
  match l with [] => d | s :: l' => spread_by i l' (after s w) (passes i w s d) end.

Theorem whoever_gets_it_carries_it : forall i l w, told i (run l w) (spread_by i l w nobody).
Proof.
  intros i l w. assert (T : told i w nobody) by (split; intros m []). revert w T. generalize nobody.
  induction l as [|s l IH]; intros d w T; [exact T|]. apply IH, told_after, T.
Qed.
