//! The 135 vectors of the protocol research, each with what holds it.
//!
//! Where the design says otherwise than a vector, the design wins, and the vector's row says why. What another test
//! holds already is not tested again; what a later issue brings names it.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

mod attacks;
mod headers;
mod policy;
mod serving;
mod sessions;
mod stage;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use Kind::Bridge;
use Kind::Changed;
use Kind::Covered;
use Kind::Later;

/// How many there are.
const COUNT: u16 = 135;
/// The issue that bridges the eras.
const BRIDGE_ISSUE: u16 = 13;

/// A vector: its number, what it says, and what becomes of it.
struct Vector {
    number: u16,
    says: &'static str,
    kind: Kind,
}

/// What becomes of a vector.
#[derive(Debug)]
enum Kind {
    /// These tests of this table hold it.
    Here(&'static [&'static str]),
    /// These tests elsewhere hold it completely.
    Covered(&'static [&'static str]),
    /// This test holds what is so instead, and why.
    Changed(&'static str, &'static str),
    /// It is about a client of one era and a server of the other.
    Bridge,
    /// An issue brings it, and why not this one.
    Later(u16, &'static str),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Here(_) => "here",
            Self::Covered(_) => "covered",
            Self::Changed(..) => "changed",
            Self::Bridge => "bridge",
            Self::Later(..) => "later",
        }
    }

    /// The tests it names.
    fn tests(&self) -> Vec<&'static str> {
        match self {
            Self::Here(tests) | Self::Covered(tests) => tests.to_vec(),
            Self::Changed(test, _) => vec![test],
            Self::Bridge | Self::Later(..) => Vec::new(),
        }
    }
}

/// Tests of this table, by their path; one that is not there does not compile.
macro_rules! here {
    ($($test:path),+) => {{
        $( let _: fn() = $test; )+
        Kind::Here(&[$(concat!("e2e::vectors::", stringify!($test))),+])
    }};
}

/// A test of this table for what is so instead.
macro_rules! changed {
    ($test:path, $why:literal) => {{
        let _: fn() = $test;
        Kind::Changed(concat!("e2e::vectors::", stringify!($test)), $why)
    }};
}

fn vector(number: u16, says: &'static str, kind: Kind) -> Vector {
    Vector { number, says, kind }
}

#[rustfmt::skip]
fn table() -> Vec<Vector> {
    vec![
        // Headers and versions.
        vector(1, "R5 tools/list with all headers → forwarded; 200, resultType preserved", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(2, "R5 without `Mcp-Method` → 400 -32020, id echoed, upstream not called", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(3, "R5 `Mcp-Method: prompts/list`, body tools/list → 400 -32020", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(4, "`mcp-method` / `MCP-METHOD` header name → accepted", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(5, "`Mcp-Method: TOOLS/LIST` → 400 -32020", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(6, "tools/call without `Mcp-Name` → 400 -32020", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(7, "`Mcp-Name: foo`, body `bar` → 400 -32020, audit event", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(8, "`Mcp-Name:   foo  ` → accepted (OWS trimmed)", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(9, "`Mcp-Name: =?base64?5pel5pys6Kqe?=`, body name 日本語 → accepted, policy sees decoded name", here!(headers::an_encoded_name_is_judged_by_what_it_says)),
        vector(10, "`Mcp-Name: =?base64?SGVsbG8?=` (bad padding) → 400 -32020", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(11, "`=?base64?SGVs!!!bG8=?=` → 400 -32020", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(12, "`=?BASE64?SGVsbG8=?=` with body of that literal text → accepted as literal", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(13, "`=?base64?SGVsbG8=` (no suffix), body identical literal → accepted", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(14, "Body name literally `=?base64?literal?=` sent plain → 400 (decodes to something else / invalid)", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(15, "Two `Mcp-Name` lines (`safe`, `evil`) → 400 -32020", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(16, "resources/read, Mcp-Name = uri with `%20` and `?id=1` → accepted verbatim", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(17, "tools/call with annotated `region`: header missing, value in body → 400 -32020", here!(headers::a_header_must_repeat_an_argument_that_is_there)),
        vector(18, "`region: null`, no header → accepted; with header → 400 (our reading, see 3.6)", here!(headers::no_header_repeats_an_argument_that_is_null_or_missing)),
        vector(19, "Annotated integer: header `42.0`, body 42 → accepted", here!(headers::an_integer_is_compared_as_a_number)),
        vector(20, "Annotated bool: header `True`, body true → 400", here!(headers::a_boolean_has_one_spelling)),
        vector(21, "Unknown `Mcp-Param-Foo` → forwarded unchanged", Covered(&["e2e::modern::headers_must_say_what_the_body_says"])),
        vector(22, "Empty-string argument with empty `Mcp-Param-X:` → accepted", here!(headers::an_empty_text_is_repeated_by_an_empty_header)),
        vector(23, "Header version 2026-07-28, `_meta` version 2025-11-25 → 400 -32020", Covered(&["e2e::modern::the_revision_is_said_in_header_and_body_and_must_be_one_that_is_spoken"])),
        vector(24, "Header and `_meta` both `v999` → 400 -32022 with supported+requested", Covered(&["e2e::modern::the_revision_is_said_in_header_and_body_and_must_be_one_that_is_spoken"])),
        vector(25, "Version header absent, modern `_meta` present → 400 -32020", Covered(&["e2e::modern::the_revision_is_said_in_header_and_body_and_must_be_one_that_is_spoken"])),
        vector(26, "`_meta` absent, header modern → 400 -32602", Covered(&["e2e::modern::the_revision_is_said_in_header_and_body_and_must_be_one_that_is_spoken"])),
        vector(27, "`_meta` without clientCapabilities → 400 -32602; without clientInfo → served", Covered(&["e2e::modern::the_revision_is_said_in_header_and_body_and_must_be_one_that_is_spoken"])),
        vector(28, "Policy on headers with version 2025-11-25 + forged `Mcp-Name: safe`, body `evil` → decision by body name `evil`", Covered(&["e2e::modern::headers_decide_nothing_in_an_older_revision"])),
        vector(29, "`initialize` on an R5-only route → error naming supported versions (400/404 JSON-RPC), no session header", changed!(headers::a_server_without_a_handshake_says_itself_which_revisions_it_speaks, "no route is of one revision: the server itself names what it speaks, and its words go on")),
        vector(30, "`ping`, `logging/setLevel`, `resources/subscribe` with R5 envelope → 404 -32601", Covered(&["e2e::modern::what_the_revision_removed_or_never_had_is_not_found"])),
        vector(31, "Unknown method R5 → 404 -32601 with id", Covered(&["e2e::modern::what_the_revision_removed_or_never_had_is_not_found"])),
        vector(32, "GET / DELETE on an R5-only endpoint → 405, `Allow: POST`", Changed("e2e::modern::get_and_delete_are_not_served", "an endpoint serves every revision: 405 is for who says 2026-07-28 in the header, and `Allow` names what others may use")),
        vector(33, "R5 request carrying `Mcp-Session-Id`/`Last-Event-ID` → ignored, not forwarded, not echoed", Covered(&["e2e::modern::sessions_and_resumption_are_ignored_and_never_passed_either_way"])),
        vector(34, "200 kB of `Mcp-Param-*` → 431 before decoding", Covered(&["e2e::modern::a_flood_of_parameter_headers_is_refused_before_it_is_decoded"])),
        vector(35, "R5 client posts a JSON-RPC response → 400 -32600", Covered(&["e2e::modern::only_one_request_or_notification_may_come"])),
        vector(36, "R5 array body → 400 -32600", Covered(&["e2e::modern::only_one_request_or_notification_may_come"])),
        vector(37, "Initialize asking 2026-07-28 (legacy handshake) → answers ≤2025-11-25", Covered(&["e2e::modern::a_handshake_never_settles_on_a_revision_without_one"])),
        vector(38, "R4 request with `MCP-Protocol-Version: 1.0` → 400", here!(headers::a_version_header_names_a_revision_and_the_one_of_its_session)),
        vector(39, "R3 request without version header but known session → session's version used", here!(headers::a_session_knows_its_revision_without_a_header)),
        // Sessions and the older transports.
        vector(40, "initialize → 200 + `Mcp-Session-Id` in 0x21–0x7E, ≥128 bits, bound to principal", here!(sessions::a_session_id_is_printable_unguessable_and_its_owners)),
        vector(41, "Non-init request without sid (required) → 400", changed!(sessions::whether_a_session_is_needed_is_for_the_server_to_say, "servers without sessions exist: whether one is needed is for the server to say")),
        vector(42, "Unknown/expired sid → 404", Covered(&["e2e::vectors::sessions::a_session_nobody_knows_is_404", "session::tests::a_token_ages_from_the_beginning_of_its_session"])),
        vector(43, "Sid of user A with token of user B → 404 (not 403 leak), audit", here!(sessions::anothers_session_is_404_and_on_record)),
        vector(44, "DELETE sid → 2xx, upstream sessions deleted; next use → 404", changed!(sessions::a_session_that_was_ended_is_404, "sessions hold no state here: the end goes to the server, which no longer knows the session then")),
        vector(45, "Upstream 404s its session → gateway re-initializes transparently; in-flight call → error, not re-executed", changed!(sessions::a_session_the_server_lost_is_404_and_nothing_is_done_twice, "a lost session is passed on as 404, the protocol's own recovery; only sessions of the gateway itself are opened again")),
        vector(46, "`notifications/initialized` → 202 empty body", Covered(&["e2e::messages::a_refused_notification_or_response_is_told_by_its_status"])),
        vector(47, "POST without `text/event-stream` in Accept → 406 (configurable leniency)", Covered(&["e2e::edge::only_plain_json_is_read_and_both_forms_of_answer_must_be_welcome"])),
        vector(48, "GET without SSE Accept → 406/405; upstream 405 on GET → DS still gets working (empty) stream or 405 per config", changed!(sessions::a_get_that_takes_no_events_is_406_and_a_server_without_a_stream_405, "there is nothing to configure: the server's 405 goes on")),
        vector(49, "R2 batch [tools/list, tools/call denied] → array: result + error, order free, ids exact", here!(sessions::a_batch_is_judged_item_by_item_and_answered_as_one)),
        vector(50, "Batch in R3/R4 session → 400 -32600", here!(sessions::only_a_session_of_2025_03_26_has_batches)),
        vector(51, "Empty batch → -32600", here!(sessions::an_empty_batch_is_refused)),
        vector(52, "initialize inside batch → rejected", here!(sessions::a_handshake_in_a_batch_is_refused)),
        vector(53, "Priming event (`id: 7`, empty data) from US → passed/re-minted, not parsed as JSON", Covered(&["e2e::streams::what_is_not_filtered_passes_byte_for_byte_but_for_what_clients_ignore"])),
        vector(54, "`Last-Event-ID` from another session → no replay, 404/empty", changed!(sessions::a_stream_is_resumed_only_in_the_session_it_was_sent_to, "event ids go on as received: the server is asked in the caller's own session and keeps other sessions' events to itself")),
        vector(55, "`retry: 3000` relayed; DS reconnect after upstream-close resumes the right upstream stream", here!(sessions::a_stream_the_server_ends_early_is_taken_up_again_where_it_was)),
        vector(56, "R1: GET SSE → endpoint event rewritten to gateway URI; US endpoint on another origin → connection refused", here!(sessions::the_endpoint_of_an_older_server_is_the_gateways_own, sessions::an_endpoint_on_another_origin_is_refused)),
        vector(57, "R1 POST to endpoint with wrong principal → 403/404", here!(sessions::anothers_endpoint_takes_no_message)),
        vector(58, "DS disconnect in R4 mid-call → upstream not cancelled; explicit cancelled(id) → upstream cancelled with mapped id", changed!(sessions::a_client_that_leaves_before_2026_has_not_cancelled, "ids are not mapped: a session of a client is one session of the server")),
        vector(59, "DS disconnect in R5 mid-call → upstream stream closed (modern) / `notifications/cancelled` sent (legacy)", Covered(&["e2e::streams::a_client_of_2026_that_leaves_cancels_its_call_within_a_second", "e2e::vectors::sessions::a_client_of_2026_that_leaves_a_list_cancels_it_too"])),
        // Ids, tokens, correlation.
        vector(60, "Two DS clients both id 1 to one pooled US session → distinct US ids, each gets its own answer", Changed("e2e::messages::clients_with_the_same_ids_each_get_their_own_answer", "no two clients share a session of a server, so ids go on as received")),
        vector(61, "id `\"1\"` vs `1` → type preserved", Covered(&["e2e::messages::what_is_accepted_arrives_byte_for_byte_and_its_digest_is_on_record"])),
        vector(62, "id 9007199254740993 → digits preserved", Covered(&["e2e::messages::what_is_accepted_arrives_byte_for_byte_and_its_digest_is_on_record"])),
        vector(63, "id null / 1.5 / true → 400 -32600", Covered(&["e2e::messages::an_envelope_is_a_request_a_notification_or_a_response_and_its_id_can_be_echoed"])),
        vector(64, "progressToken string/number collision across clients → rewritten and restored", changed!(sessions::progress_tokens_of_different_clients_never_meet, "no two clients share a session of a server, so tokens go on as received")),
        vector(65, "US progress for unknown token → dropped", changed!(sessions::progress_nobody_asked_for_is_its_clients_to_ignore, "traffic of one era passes unchanged: no other client can be reached, and clients ignore tokens that are not theirs")),
        vector(66, "US response with foreign id → dropped, call fails -32603/502", Covered(&["e2e::streams::an_answer_under_another_id_and_a_second_answer_are_dropped", "e2e::upstream_faults::what_is_http_but_no_answer_to_the_request_does_not_pass"])),
        vector(67, "cancelled for id not owned → ignored, 202", changed!(sessions::a_cancellation_goes_to_its_own_session_whatever_it_names, "sessions hold no state here: the session's own server ignores what it does not know")),
        vector(68, "DS POSTs response for S→C id never issued to that session → 4xx, not forwarded", changed!(sessions::a_response_to_nothing_goes_to_its_own_session_whose_server_decides, "sessions hold no state here: the session's own server decides")),
        vector(69, "Two upstreams both send S→C request id 5 → DS sees different ids; answers routed back", Later(12, "one session reaches two servers only on the aggregate")),
        // Policy and filtering.
        vector(70, "Denied tool absent from tools/list; call → -32602 unknown tool or 403 insufficient_scope with scope+resource_metadata", changed!(policy::a_denied_tool_is_neither_listed_nor_callable, "-32602 under HTTP 200, in the older revisions too; what scopes would open is answered with 403 once there are scopes")),
        vector(71, "Filtered page empty but nextCursor kept; client reaches end", here!(policy::a_page_that_is_empty_after_filtering_still_leads_on)),
        vector(72, "cursor `\"\"` forwarded as a real cursor", Covered(&["e2e::messages::what_is_accepted_arrives_byte_for_byte_and_its_digest_is_on_record"])),
        vector(73, "Tampered composite cursor → -32602", Later(12, "cursors are of the server itself until lists of several servers are merged")),
        vector(74, "`completion/complete` ref to a denied prompt/resource → denied", here!(policy::nothing_is_completed_for_what_may_not_be_had)),
        vector(75, "`resources/read` `file:///allowed/../etc/passwd` → canonical check denies", here!(policy::a_resource_is_judged_by_where_its_address_leads)),
        vector(76, "tools/call result with resource_link to denied uri → removed or later read denied", here!(policy::what_a_result_links_to_is_judged_when_it_is_read)),
        vector(77, "tasks/get of another principal's taskId → -32602", here!(policy::anothers_task_does_not_exist)),
        vector(78, "tasks/get without extension declared → 400 -32021", here!(policy::tasks_are_for_those_who_declare_them)),
        vector(79, "`notifications/tasks`/tasks/get `result` goes through output filter", Later(10, "what a result says is inspected from then on")),
        vector(80, "clientCapabilities.sampling stripped by policy → US never gets it; US still asks → blocked", here!(policy::a_server_neither_sees_nor_gets_what_it_may_not_ask_for)),
        vector(81, "Tool definition hash changed vs pin → hidden/quarantined + alarm + list_changed", Later(10, "definitions are pinned from then on")),
        vector(82, "Tool with x-mcp-header `\"My Region\"`, duplicate `Region/REGION`, on `number`, under `items`, or via `$ref` → dropped from list when gateway serves as client; other tools stay", Bridge),
        vector(83, "inputSchema with remote `$ref` → not fetched", here!(policy::a_schema_that_points_elsewhere_is_not_followed)),
        vector(84, "listen with resourceSubscriptions containing a denied uri → omitted in ack; no updates leak", here!(policy::nobody_hears_of_a_resource_they_may_not_read)),
        vector(85, "US sends unrequested type on listen → filtered", here!(policy::a_subscription_brings_only_what_it_asked_for)),
        vector(86, "US sends S→C request on R5 stream → dropped, logged", Covered(&["e2e::streams::a_request_of_the_server_does_not_reach_a_client_of_2026", "e2e::vectors::policy::a_subscription_brings_only_what_it_asked_for"])),
        vector(87, "US log message without requested logLevel → dropped (R5)", here!(policy::a_log_message_comes_only_to_who_asked_for_a_level)),
        // Rounds, bridging, subscriptions.
        vector(88, "input_required passes through with requestState byte-exact; retry has new id; policy re-run", here!(policy::a_round_of_questions_passes_as_it_is_and_each_retry_is_judged)),
        vector(89, "Retry with changed arguments after gateway approval → rejected (digest)", Later(11, "the gateway gives no approvals of its own before")),
        vector(90, "Gateway-sealed requestState tampered / expired / other principal → error, nothing forwarded", Later(11, "the gateway seals no `requestState` of its own before")),
        vector(91, "input_required on tools/list from US → treated invalid → -32603", here!(policy::only_three_methods_may_ask_back)),
        vector(92, "input_required with url to non-https/denied host → blocked", changed!(policy::a_user_is_sent_only_to_safe_addresses, "there is no list of hosts yet: `https` to any host that every reader finds, or this very machine")),
        vector(93, "R5 DS ↔ R4 US: elicitation on POST stream → DS gets input_required; retry completes the *same* upstream call once", Bridge),
        vector(94, "DS never retries → after TTL upstream gets elicitation `cancel` + cancelled; park freed", Bridge),
        vector(95, "Retry lands on another node → forwarded to owner or clear error; never executed twice", Bridge),
        vector(96, "R4 DS ↔ R5 US with two inputRequests → two S→C requests, one retry with both keys", Bridge),
        vector(97, "R4 DS without elicitation capability → US request carries no elicitation capability; -32021 → tool error", Bridge),
        vector(98, "US -32042 to R5 DS → input_required(url); never -32042", Bridge),
        vector(99, "US -32002 → R5 DS sees -32602 (never -32002); reverse mapping optional", Bridge),
        vector(100, "Up-translated result gets resultType, ttlMs 0, private; down-translated loses them; array structuredContent dropped for R4", Bridge),
        vector(101, "listen → first SSE message is ack, subscriptionId equals listen id incl. type; two upstreams' tools changes → one or more tagged notifications; drain → final result then close", here!(policy::a_subscription_begins_with_its_acknowledgement_and_ends_with_a_result, policy::a_gateway_on_its_way_out_ends_subscriptions_with_a_result)),
        vector(102, "Upstream listen drops → gateway reconnects with jitter, emits synthetic list_changed", Bridge),
        vector(103, "setLevel debug by R4 DS → `_meta.logLevel` on later R5 US calls", Bridge),
        // Caching.
        vector(104, "public ttl 60000 tools/list by user A then B → one US call; different JSON-RPC ids", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        vector(105, "private → two calls", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        vector(106, "ttl 0/negative/absent → no reuse", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        vector(107, "Different cursor/uri → no reuse", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        vector(108, "list_changed → entry purged before relaying", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        vector(109, "Filtered-per-user list from public upstream → served as private", here!(policy::a_list_that_was_filtered_is_nobody_elses)),
        vector(110, "MRTR retry read → never stored", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        vector(111, "Revoked token + cached public list → 401 first", Later(12, "nothing is kept to be answered again before the aggregate keeps definitions")),
        // Authorization and HTTP.
        vector(112, "No token → 401 with resource_metadata (+scope), no upstream contact", Later(6, "401 and silence towards the server hold already; `resource_metadata` comes with OAuth")),
        vector(113, "Wrong aud → 401 invalid_token", Later(6, "tokens have an audience once there are tokens")),
        vector(114, "Token in query → 401/400", Covered(&["e2e::edge_auth::a_key_in_the_query_is_refused_and_written_nowhere"])),
        vector(115, "Missing scope → 403 with all needed scopes", Later(6, "scopes come with OAuth")),
        vector(116, "PRM at path-inserted and root URL, unauthenticated, `resource` exact", Later(6, "metadata comes with OAuth")),
        vector(117, "Inbound Authorization never reaches upstream", Covered(&["e2e::edge_auth::a_key_is_taken_from_every_header_that_may_carry_one_and_goes_no_further", "e2e::canary::no_secret_of_either_side_ever_reaches_the_other_or_is_kept"])),
        vector(118, "Upstream 401 header not relayed", Covered(&["e2e::upstream_faults::redirects_and_challenges_are_neither_followed_nor_passed_on"])),
        vector(119, "AS metadata issuer mismatch → refused", Later(8, "the gateway is no OAuth client of servers before")),
        vector(120, "PRM url → 169.254.169.254 or redirect to it → blocked", Later(8, "the gateway is no OAuth client of servers before")),
        vector(121, "`Origin: https://evil` → 403; absent → ok", Covered(&["e2e::edge::browsers_may_ask_only_from_our_own_origins"])),
        vector(122, "Host rebinding on local listener → 4xx", Covered(&["e2e::edge::only_our_own_hosts_are_answered"])),
        vector(123, "Duplicate `name` keys (`safe`,`evil`, also via `\\u0061`) → 400", Covered(&["e2e::messages::a_key_that_stands_twice_refuses_the_message_wherever_it_stands"])),
        vector(124, "`{\"Method\":\"x\",\"method\":\"y\"}` → 400", Covered(&["e2e::messages::a_reserved_key_has_one_spelling"])),
        vector(125, "BOM / UTF-16 / lone surrogate / trailing garbage → 400", Covered(&["e2e::messages::bytes_that_are_no_json_text_are_refused", "e2e::messages::strings_and_numbers_have_one_reading"])),
        vector(126, "depth 10k → 400, bounded CPU", Covered(&["e2e::messages::what_a_message_may_hold_has_limits_met_at_their_numbers"])),
        vector(127, "`Content-Encoding: gzip` bomb → 413/415", Covered(&["e2e::edge::only_plain_json_is_read_and_both_forms_of_answer_must_be_welcome"])),
        vector(128, "CL+TE → 400, connection closed", Covered(&["e2e::edge::a_request_with_two_lengths_is_refused"])),
        vector(129, "Argument 12345678901234567890 → digits intact upstream", Covered(&["e2e::messages::what_is_accepted_arrives_byte_for_byte_and_its_digest_is_on_record"])),
        vector(130, "US 200 `text/html` → 502-class JSON-RPC -32603", Covered(&["e2e::upstream_faults::what_is_http_but_no_answer_to_the_request_does_not_pass"])),
        vector(131, "SSE with CR-only, multi-line data, comments, split UTF-8 across chunks → parsed right", Covered(&["e2e::sse_differential::an_answer_cut_anywhere_is_read_as_it_was_screened"])),
        vector(132, "`data` with embedded newline on re-emit → split into data lines", Covered(&["e2e::sse_differential::an_answer_cut_anywhere_is_read_as_it_was_screened", "e2e::streams::a_list_in_a_stream_is_filtered_wherever_it_is_cut"])),
        vector(133, "Idle listen → keepalive comment ≤ N s", here!(serving::an_idle_stream_is_kept_alive_by_comments)),
        vector(134, "429/503 from the gateway carries JSON-RPC error + Retry-After and does not trigger era fallback", Covered(&["e2e::streams::no_more_streams_are_open_than_the_limit", "e2e::vectors::serving::a_busy_server_is_told_so_with_a_time_to_wait"])),
        vector(135, "Policy reject never uses bare 400/404/405", here!(serving::no_refusal_looks_like_another_era)),
    ]
}

/// The file of a test's module, and the test's name.
fn source(test: &str) -> (String, &str) {
    let (module, name) = test.rsplit_once("::").unwrap();
    let module = module.replace("::", "/");
    let places = ["tests", "src"].map(|root| [format!("{root}/{module}.rs"), format!("{root}/{module}/mod.rs")]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = places.iter().flatten().find_map(|place| fs::read_to_string(root.join(place)).ok());
    (found.unwrap_or_else(|| panic!("no module of `{test}`")), name)
}

/// Whether this text has a test of this name, and not only a function.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| {
        matches!(pair[0], "#[test]" | "#[tokio::test]")
            && pair[1].split_once("fn ").is_some_and(|(_, rest)| rest.split('(').next() == Some(name))
    })
}

#[test]
fn every_vector_stands_in_the_table_once() {
    let numbers: Vec<u16> = table().iter().map(|vector| vector.number).collect();
    assert_eq!(numbers, (1..=COUNT).collect::<Vec<_>>());
    let mut said = BTreeMap::new();
    for vector in table() {
        assert!(vector.says.len() > 10, "{}", vector.number);
        assert_eq!(said.insert(vector.says, vector.number), None, "said twice");
    }
}

#[test]
fn every_test_the_table_names_is_there() {
    for vector in table() {
        for test in vector.kind.tests() {
            let (source, name) = source(test);
            assert!(has_test(&source, name), "{}: no test `{test}`", vector.number);
        }
        assert!(!matches!(vector.kind, Kind::Here([]) | Kind::Covered([])), "{}", vector.number);
    }
    assert!(!has_test("#[test]\nfn one() {}\nasync fn two() {}", "two"));
    assert!(has_test("#[tokio::test]\npub(super) async fn two() {}", "two"));
}

#[test]
fn what_is_changed_or_comes_later_says_why() {
    for vector in table() {
        match vector.kind {
            Changed(_, why) => assert!(why.len() > 20, "{}", vector.number),
            Later(issue, why) => {
                assert!(why.len() > 10 && (4..=16).contains(&issue) && issue != BRIDGE_ISSUE, "{}", vector.number);
            }
            Bridge => assert!(matches!(vector.number, 82 | 93..=103), "{}", vector.number),
            Kind::Here(_) | Covered(_) => {}
        }
    }
}

/// What is left for later is known by number, so that nothing joins it unseen.
#[test]
fn the_table_leaves_no_more_for_later_than_this() {
    let mut numbers: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for vector in table() {
        numbers.entry(vector.kind.name()).or_default().push(vector.number);
    }
    let bridged = [82, 93, 94, 95, 96, 97, 98, 99, 100, 102, 103];
    let later = [69, 73, 79, 81, 89, 90, 104, 105, 106, 107, 108, 110, 111, 112, 113, 115, 116, 119, 120];
    assert_eq!((&numbers["bridge"][..], &numbers["later"][..]), (&bridged[..], &later[..]));
}
