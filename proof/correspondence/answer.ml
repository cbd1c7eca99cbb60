(* Copyright (c) 2026 the exfil.guard authors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later *)

(* Reads questions in JSON, one per line, and prints one line for each: the answers of the program that was extracted
   from the proof for a policy and its events. specification.py has the other half of the format. A record is an array
   of its fields in the order of Meaning.v; an absent value is null; a component is its bytes in hexadecimal; an address
   is its bits as a text of 0 and 1; a vector of bits is a hexadecimal text. This file decides nothing. *)

module S = Specification

(* ---- the subset of JSON that is used ---------------------------------------------------------------------------- *)

type json = Null | Bool of bool | Int of int | Text of string | List of json list

let read line =
  let at = ref 0 in
  let bad what = failwith (Printf.sprintf "%s at %d of %s" what !at line) in
  let peek () = if !at < String.length line then line.[!at] else ' ' in
  let word w value =
    let n = String.length w in
    if !at + n <= String.length line && String.sub line !at n = w then (at := !at + n; value) else bad "no word" in
  let rec value () =
    match peek () with
    | '[' -> incr at; if peek () = ']' then (incr at; List []) else items []
    | '"' ->
        let first = !at + 1 in
        let last = try String.index_from line first '"' with Not_found -> bad "no end of the text" in
        at := last + 1; Text (String.sub line first (last - first))
    | 'n' -> word "null" Null
    | 't' -> word "true" (Bool true)
    | 'f' -> word "false" (Bool false)
    | '0' .. '9' ->
        let first = !at in
        while (match peek () with '0' .. '9' -> true | _ -> false) do incr at done;
        Int (int_of_string (String.sub line first (!at - first)))
    | _ -> bad "no value"
  and items found =
    let found = value () :: found in
    match peek () with
    | ',' -> incr at; items found
    | ']' -> incr at; List (List.rev found)
    | _ -> bad "no end of the list" in
  let whole = value () in
  if !at <> String.length line then bad "something is left" else whole

let rec write out = function
  | Null -> Buffer.add_string out "null"
  | Bool b -> Buffer.add_string out (string_of_bool b)
  | Int i -> Buffer.add_string out (string_of_int i)
  | Text t -> Buffer.add_char out '"'; Buffer.add_string out t; Buffer.add_char out '"'
  | List l ->
      Buffer.add_char out '[';
      List.iteri (fun i each -> if i > 0 then Buffer.add_char out ','; write out each) l;
      Buffer.add_char out ']'

(* ---- from JSON -------------------------------------------------------------------------------------------------- *)

let shape what = failwith ("not " ^ what)
let rec positive i =
  if i = 1 then S.XH else if i land 1 = 1 then S.XI (positive (i lsr 1)) else S.XO (positive (i lsr 1))
let binary i = if i = 0 then S.N0 else S.Npos (positive i)

let number = function Int i -> binary i | _ -> shape "a number"
let counter = function Int i -> i | _ -> shape "a counter"
let truth = function Bool b -> b | _ -> shape "true or false"
let many f = function List l -> List.map f l | _ -> shape "a list"
let maybe f = function Null -> None | j -> Some (f j)
let both f g = function List [ a; b ] -> (f a, g b) | _ -> shape "a pair"
let bytes = Array.init 256 binary
let component = function
  | Text t -> List.init (String.length t / 2) (fun i -> bytes.(int_of_string ("0x" ^ String.sub t (2 * i) 2)))
  | _ -> shape "a component"
let address = both truth (function Text t -> List.init (String.length t) (fun i -> t.[i] = '1') | _ -> shape "bits")

let segment = function Null -> S.Any | j -> S.Glob (component j)
let placed = function
  | List [ device; head; tree ] ->
      { S.on_device = number device; shape = (many segment head, truth tree) }
  | _ -> shape "a pattern"
let subject = function
  | List [ users; login_users; groups; services; executables; has_read ] ->
      { S.users = maybe (many number) users; login_users = maybe (many number) login_users;
        groups = maybe (many number) groups; services = maybe (many (many component)) services;
        executables = maybe (many placed) executables; has_read = maybe (many number) has_read }
  | _ -> shape "a subject set"
let destination = function
  | List [ cidrs; ports; protocols; vsock ] ->
      { S.cidrs = maybe (many address) cidrs; ports = maybe (many (both number number)) ports;
        protocols = maybe (many number) protocols;
        vsock = maybe (many (both (maybe number) (maybe number))) vsock }
  | _ -> shape "a destination set"
let selection = function
  | List [ names; negated ] -> { S.names = many number names; negated = truth negated }
  | _ -> shape "a selection"
let rule = function
  | List [ name; deny; subjects; excepts; resources; destinations; audit; expires ] ->
      { S.name = number name; deny = many number deny; subjects = maybe (many number) subjects;
        excepts = many number excepts; resources = maybe selection resources;
        destinations = maybe selection destinations; audit = truth audit; expires = maybe number expires }
  | _ -> shape "a rule"
let policy = function
  | List [ rules; subjects; resources; destinations; superblocks; protected_ ] ->
      { S.rules = many rule rules; subject_sets = many (both number subject) subjects;
        resource_sets = many (both number (many placed)) resources;
        destination_sets = many (both number destination) destinations;
        superblocks = many number superblocks; protected = many placed protected_ }
  | _ -> shape "a policy"
let location = function
  | List [ device; path; pseudo; lost ] ->
      { S.device = number device; path = many component path; pseudo = truth pseudo; lost = maybe number lost }
  | _ -> shape "a location"
let task = function
  | List [ ids; group_ids; memberships; login; service; executable; labels; ids_truncated ] ->
      { S.ids = many number ids; group_ids = many number group_ids; memberships = many number memberships;
        login = number login; service = maybe (many component) service; executable = maybe location executable;
        labels = many number labels; ids_truncated = truth ids_truncated }
  | _ -> shape "a task"
let event = function
  | List [ Text "file"; action; at ] -> S.File (number action, location at)
  | List [ Text "alias"; source; target; directory ] -> S.Alias (location source, location target, truth directory)
  | List [ Text "network"; action; to_; port; protocol; trouble ] ->
      S.Network (number action, address to_, number port, number protocol, maybe number trouble)
  | List [ Text "vsock"; cid; port ] -> S.Vsock (number cid, number port)
  | List [ Text "plain"; action ] -> S.Plain (number action)
  | List [ Text "tamper"; root; at; below ] -> S.Tamper (truth root, maybe location at, truth below)
  | _ -> shape "an event"

(* ---- to JSON ---------------------------------------------------------------------------------------------------- *)

let rec positive_int = function S.XH -> 1 | S.XO p -> 2 * positive_int p | S.XI p -> (2 * positive_int p) + 1
let int_of = function S.N0 -> 0 | S.Npos p -> positive_int p
let say_number n = Int (int_of n)
let say_maybe f = function None -> Null | Some a -> f a
let say_many f l = List (List.map f l)
let say_pair f g (a, b) = List [ f a; g b ]
let say_counter i = Int i
let say_component c = Text (String.concat "" (List.map (fun b -> Printf.sprintf "%02x" (int_of b)) c))
let say_bits l = Text (String.concat "" (List.map (fun b -> if b then "1" else "0") l))

(* Four bits per digit, the lowest first. *)
let say_vector v =
  let rec bits = function S.XH -> [ 1 ] | S.XO p -> 0 :: bits p | S.XI p -> 1 :: bits p in
  let rec digits found = function
    | [] -> found
    | a :: b :: c :: d :: more -> digits (a + (2 * b) + (4 * c) + (8 * d) :: found) more
    | few -> List.fold_right (fun b n -> b + (2 * n)) few 0 :: found in
  let found = match v with S.N0 -> [ 0 ] | S.Npos p -> digits [] (bits p) in
  Text (String.concat "" (List.map (Printf.sprintf "%x") found))

let say_verdict (v : S.verdict) =
  let outcome = match v.result with S.Allow -> "allow" | S.Audit -> "audit" | S.Deny -> "deny" in
  List [ Text outcome; say_maybe say_number v.by_rule; say_number v.reason ]

let say_row (r : int S.row) = List [ Int r.target; say_many (say_pair say_number say_counter) r.next; Int r.other ]
let say_node (n : int S.node) =
  List [ Int n.otherwise; say_many (say_pair say_component say_counter) n.edges; say_many say_row n.rows ]

let say_image (im : S.image) =
  let vectors l = say_many say_vector l in
  List [
    say_many say_number im.t_rules;
    vectors [ im.always; im.audits; im.not_destinations; im.named ];
    vectors im.of_action;
    vectors [ im.any_user; im.any_login; im.any_group; im.any_service; im.any_executable; im.any_label;
              im.any_address; im.any_port; im.any_protocol ];
    Int im.service_root; Bool im.denies_labels;
    say_many (say_pair say_vector say_vector) im.t_subjects;
    say_many (say_pair say_vector say_vector) im.t_destinations;
    say_many (say_pair (say_pair say_number say_number) say_vector) im.t_ids;
    say_many (say_pair say_bits say_vector) im.t_ipv4;
    say_many (say_pair say_bits say_vector) im.t_ipv6;
    say_many (say_pair say_bits say_vector) im.t_ports;
    say_many (say_pair (say_many say_number) say_vector) im.t_vsock;
    say_many (say_pair say_number say_counter) im.t_superblocks;
    say_many say_node im.t_nodes;
    List (List.map vectors [ im.c_services; im.c_executables; im.c_labels; im.c_covers; im.c_reaches; im.c_pervades ]) ]

(* ---- questions -------------------------------------------------------------------------------------------------- *)

(* The limit of the tables for states. *)
let fuel = 65536

let answer = function
  | List [ policy_; bits_; today_; tables; events; objects ] ->
      let p = policy policy_ and bits = many (both number counter) bits_ and today = number today_ in
      (match S.compile fuel bits p today with
      | None -> List [ Bool false; Null; List []; List [] ]
      | Some im ->
          let labels = S.label_names p in
          let named = S.union (List.map (fun l -> S.bit (S.bit_of bits l)) labels) in
          let decided j =
            let t, e = both task event j in
            List [ Bool (S.possible_event e); say_verdict (S.decide p today t e); say_verdict (S.lookup im t e) ] in
          let given j =
            let w = location j in
            List [ say_many say_number (List.filter (S.gives p w) labels); say_vector (S.reading im named w) ] in
          List [ Bool (S.valid bits p); (if truth tables then say_image im else Null); List (many decided events);
                 List (many given objects) ])
  | _ -> shape "a question"

let () =
  let out = Buffer.create 65536 in
  try
    while true do
      let line = input_line stdin in
      Buffer.clear out;
      write out (answer (read line));
      Buffer.add_char out '\n';
      print_string (Buffer.contents out);
      flush stdout
    done
  with End_of_file -> ()
