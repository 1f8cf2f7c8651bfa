//! Is the gateway ready for calls, and what should an operator look at if not?
//!
//! What is this process's own counts: a balancer is then to send calls elsewhere. A server that is down, or an issuer whose keys
//! are not known, is so for every gateway alike, and other calls go on: that is told, and changes nothing.

use std::time::Instant;

use crate::admin::Check;
use crate::admin::Readiness;
use crate::runtime::Runtime;

/// Looks at everything, now.
pub(super) fn of(runtime: &Runtime) -> Readiness {
    let active = runtime.active();
    let mut checks = vec![
        // There is no gateway without one: what a reload refuses changes nothing.
        Check::counting("config_loaded", true).with(format!("revision {}", active.snapshot.revision)),
        Check::counting("audit_available", runtime.audit.available()),
        Check::counting("not_draining", !runtime.is_draining()),
        // Somebody changes the record, or its checkpoints cannot be written: calls go on, and somebody must look.
        Check::informing("audit_signed", !runtime.audit.stats().is_unsigned),
    ];
    for upstream in active.fleet.iter() {
        let (up, all) = (upstream.endpoints_up(), upstream.endpoints().len());
        let check = Check::informing(format!("server/{}", upstream.plan().name()), up > 0);
        checks.push(check.with(format!("{up} of {all} endpoints up")));
    }
    for issuer in runtime.issuers(Instant::now()) {
        let check = Check::informing(format!("issuer/{}", issuer.issuer), issuer.keys > 0);
        checks.push(check.with(match issuer.age {
            Some(age) => format!("{} keys, {} s old", issuer.keys, age.as_secs()),
            None => "no keys yet".to_owned(),
        }));
    }
    Readiness { checks }
}
