//! Sealing and opening what names sessions and tasks.

use std::hint::black_box;
use std::rc::Rc;

use portcullis::seal::KEY_BYTES;
use portcullis::seal::Keyring;
use portcullis::seal::NONCE_BYTES;
use portcullis::session;
use portcullis::session::Kind;
use portcullis::session::Session;
use portcullis::session::Task;

use super::Case;

const PRINCIPAL: &str = "key:analyst";
const SERVER: &str = "database";
const SINCE: u64 = 1_790_000_000;

/// Sealing, opening, and refusing what was sealed for somebody else.
pub(crate) fn cases() -> Vec<Case> {
    let keyring = Rc::new(Keyring::new(vec![[7; KEY_BYTES], [8; KEY_BYTES]]).unwrap());
    let opened = Session {
        server: SERVER.into(),
        endpoint: 0x1234_5678_9abc_def0,
        upstream_id: "3fa85f64-5717-4562-b3fc-2c963f66afa6".into(),
        principal: PRINCIPAL.into(),
        revision: "2025-11-25".into(),
        since: SINCE,
    };
    let task = Task {
        server: SERVER.into(),
        endpoint: opened.endpoint,
        upstream_id: "task-786512e2-9e0d-44bd-8f29-789f320fe840".into(),
        principal: PRINCIPAL.into(),
        tool: Some("execute_query".into()),
    };
    let token = session::seal(&keyring, Kind::Streamable, &opened, [9; NONCE_BYTES]).unwrap();
    let task_token = session::seal_task(&keyring, &task).unwrap();
    let open = |name: &str, principal: &'static str, opens: bool| {
        let (keyring, token) = (Rc::clone(&keyring), token.clone());
        Case::new(name, 200, move || {
            let session = session::open(&keyring, Kind::Streamable, &token, principal, SERVER, SINCE + 60);
            assert_eq!(black_box(session).is_some(), opens);
        })
    };
    let (sealing, sealing_tasks, opening_tasks) = (Rc::clone(&keyring), Rc::clone(&keyring), Rc::clone(&keyring));
    vec![
        Case::new("session, seal", 200, move || {
            let sealed = session::seal(&sealing, Kind::Streamable, &opened, [9; NONCE_BYTES]);
            assert!(black_box(sealed).is_ok());
        }),
        open("session, open", PRINCIPAL, true),
        open("session, open another's", "key:mallory", false),
        Case::new("session, seal a task", 200, move || {
            assert!(black_box(session::seal_task(&sealing_tasks, &task)).is_ok());
        }),
        Case::new("session, open a task", 200, move || {
            assert!(black_box(session::open_task(&opening_tasks, &task_token, PRINCIPAL, SERVER)).is_some());
        }),
    ]
}
