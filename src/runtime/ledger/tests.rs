//! Is a use counted everywhere or nowhere, and does nobody wait for it?

use super::*;
use crate::config::model::Config;
use crate::quota::Limit;

const NOW: u64 = 1_773_576_000_000_000;

fn quotas(text: &str) -> Quotas {
    Quotas::compile(&toml::from_str::<Config>(text).unwrap())
}

fn stranger(number: usize) -> Principal {
    Principal::of_token("idp", &format!("user:{number}"))
}

/// One request at the door, which stays counted.
fn ask(ledger: &Arc<Ledger>, quotas: &Quotas, who: &Principal, now: u64) -> Result<(), NotGranted> {
    let rules = quotas.of_caller(who);
    ledger.reserve(rules, Use::at_door(&"a".into()), (who, quotas), now)?.keep();
    Ok(())
}

fn call(cost: u64) -> Use {
    let cost = crate::config::model::Money::from_micros(cost);
    Use { rates: crate::quota::Rates::Called, call: true, cost, ..Use::at_door(&"a".into()) }
}

#[test]
fn a_flood_of_made_up_callers_neither_grows_the_table_nor_lifts_a_limit() {
    let quotas = quotas("[limits]\ncallers_max = 3\neach_caller.rpm_limit = 2\n[keys.ci.limits]\nrpm_limit = 1\n");
    let ledger = Arc::new(Ledger::default());
    let (known, key) = (stranger(0), Principal::of_key("ci"));
    assert!(ask(&ledger, &quotas, &known, NOW).is_ok() && ask(&ledger, &quotas, &known, NOW).is_ok());
    assert!(ask(&ledger, &quotas, &key, NOW).is_ok());
    let granted = (1..10_000).filter(|number| ask(&ledger, &quotas, &stranger(*number), NOW).is_ok()).count();
    let (strangers, all) = {
        let accounts = ledger.lock();
        (accounts.strangers["idp"].count, accounts.states.len())
    };
    assert_eq!((granted, strangers, all), (2, 3, 5));
    assert!(matches!(ask(&ledger, &quotas, &stranger(99), NOW), Err(NotGranted::CallersFull { .. })));
    for limited in [&known, &key] {
        assert!(matches!(ask(&ledger, &quotas, limited, NOW), Err(NotGranted::Reached(_))), "{}", limited.id);
    }
    // Who comes with a key has a place, and places are free again once what was used is over.
    assert!(ask(&ledger, &quotas, &Principal::of_key("other"), NOW).is_ok());
    let later = NOW + 29_000_000;
    ledger.sweep(NOW);
    ledger.sweep(later);
    assert!(matches!(ask(&ledger, &quotas, &stranger(99), later), Err(NotGranted::CallersFull { wait: 2 })));
    let later = NOW + 61_000_000;
    ledger.sweep(later);
    assert!(ask(&ledger, &quotas, &stranger(99), later).is_ok());
    assert_eq!(ledger.lock().strangers["idp"].count, 1);
}

#[test]
fn no_issuer_takes_the_places_of_another() {
    let issuer = |name: &str| format!("[auth.issuers.{name}]\nissuer = \"https://{name}.example\"\n");
    let limits = "[limits]\ncallers_max = 7\neach_caller.rpm_limit = 60\n";
    let quotas = quotas(&format!("{limits}{}{}", issuer("one"), issuer("two")));
    let ledger = Arc::new(Ledger::default());
    let come = |issuer: &str, used: &Use| {
        let granted = |number: &usize| {
            let who = Principal::of_token(issuer, &format!("made-up:{number}"));
            let granted = ledger.reserve(quotas.of_caller(&who), used.clone(), (&who, &quotas), NOW);
            granted.map(|mut reservation| reservation.keep()).is_ok()
        };
        (0..100).filter(granted).count()
    };
    assert_eq!(come("one", &call(0)), 3, "an equal share for each");
    assert_eq!(come("two", &Use::at_door(&"a".into())), 3, "whatever the other has used");
    // Each is told when one of its own places is free: rates are worked off at once, calls remembered until after midnight.
    ledger.sweep(NOW);
    let wait = |issuer: &str| match ask(&ledger, &quotas, &Principal::of_token(issuer, "somebody"), NOW) {
        Err(NotGranted::CallersFull { wait }) => wait,
        other => panic!("{other:?}"),
    };
    assert!((wait("one"), wait("two")) == (13 * 3_600 + 1, 2), "{} {}", wait("one"), wait("two"));
    // What was written down counts for the issuer whose callers they are.
    let (mut written, restarted) = (Vec::new(), Ledger::default());
    ledger.write(&mut written).unwrap();
    restarted.read(&*written).unwrap();
    assert_eq!(restarted.lock().strangers["one"].count, 3);
    assert_eq!(Quotas::compile(&Config::default()).callers_of_issuer_max, 100_000, "without issuers nobody shares");
}

#[test]
fn the_time_until_a_place_is_free_is_the_true_one() {
    let quotas = quotas("[limits]\ncallers_max = 2\neach_caller.rpm_limit = 60\n");
    let ledger = Arc::new(Ledger::default());
    let wait = |who: usize, now: u64| match ask(&ledger, &quotas, &stranger(who), now) {
        Ok(()) => None,
        Err(NotGranted::CallersFull { wait }) => Some(wait),
        Err(other) => panic!("{other:?}"),
    };
    // Both have made calls, which are remembered until an hour after midnight.
    for number in 0..2 {
        let who = stranger(number);
        ledger.reserve(quotas.of_caller(&who), call(0), (&who, &quotas), NOW).unwrap().keep();
    }
    ledger.sweep(NOW);
    let (until, told) = (NOW + 13 * 3_600_000_000, wait(2, NOW).unwrap());
    assert_eq!(told, 13 * 3_600 + 1);
    assert!(ledger.is_full());
    let mut now = NOW;
    while now < until {
        assert!(wait(2, now).is_some());
        now += 30_000_000;
        ledger.sweep(now);
    }
    assert!(now <= NOW + told * 1_000_000 && wait(2, now).is_none());
    // Of one more it is not known yet when it goes: at the next look it is.
    assert_eq!(wait(3, now), None);
    assert_eq!(wait(4, now), Some(1));
    ledger.sweep(now);
    assert_eq!(wait(4, now), Some(2), "a request is worked off after a second");
}

#[test]
fn a_clock_that_steps_forward_and_back_forgets_nothing() {
    let quotas = quotas("[keys.ci.limits]\ncalls_per_day_max = 1\n");
    let who = Principal::of_key("ci");
    let granted = |ledger: &Arc<Ledger>, now: u64| {
        ledger.sweep(now);
        let granted = ledger.reserve(quotas.of_caller(&who), call(0), (&who, &quotas), now);
        granted.map(|mut reserved| reserved.keep()).is_ok()
    };
    let day = 86_400_000_000;
    for far in [13 * 3_600_000_000, 3 * day, 400 * day] {
        let ledger = Arc::default();
        let all: Vec<bool> = (0..6).map(|round| granted(&ledger, NOW + far * (round % 2))).collect();
        assert_eq!(all, [true, true, false, false, false, false], "one of each day");
        // The same where nobody called on the other day, and what is over was looked for.
        let ledger = Arc::default();
        assert!(granted(&ledger, NOW));
        ledger.sweep(NOW + far);
        ledger.sweep(NOW + far + 5_000_000);
        assert!(!granted(&ledger, NOW + 10_000_000));
    }
    // Over midnight by some seconds: no step that could be seen.
    let (ledger, midnight) = (Arc::default(), NOW + day / 2);
    assert!(granted(&ledger, midnight - 5_000_000));
    ledger.sweep(midnight + 5_000_000);
    assert!(!granted(&ledger, midnight - 4_000_000));
    // A clock that stays is believed after an hour, and then what is over is forgotten.
    let mut now = NOW + 10 * day;
    ledger.sweep(now);
    assert_eq!(ledger.lock().states.len(), 1);
    for _ in 0..=120 {
        now += 30_000_000;
        ledger.sweep(now);
    }
    assert!(ledger.lock().states.is_empty());
}

#[test]
fn nobody_waits_for_more_than_a_slice_of_the_accounts() {
    let quotas = quotas("[limits]\neach_caller.servers_max = 1000\n");
    let ledger = Arc::new(Ledger::default());
    let accounts = 3 * SLICE_MAX;
    for number in 0..accounts {
        let who = stranger(number);
        // A few have called many servers, which take as long to copy as accounts do.
        for server in 0..if number % 100 == 0 { 300 } else { 1 } {
            let used = Use { server: format!("s{server}").into(), ..call(0) };
            ledger.reserve(quotas.of_caller(&who), used, (&who, &quotas), NOW).unwrap().keep();
        }
    }
    let (mut next, mut seen, mut slices) = (Some(0), 0, 0);
    while let Some(first) = next {
        let (slice, end) = ledger.lock().slice(first);
        let weight: usize = slice.iter().map(|(_, state)| state.weight()).sum();
        assert!(weight <= SLICE_MAX + 301, "{weight}");
        (next, seen, slices) = (end, seen + slice.len(), slices + 1);
    }
    assert!(seen == accounts && slices > 6, "{seen} {slices}");
    ledger.sweep(NOW);
    let later = NOW + 30 * 3_600_000_000;
    ledger.lock().swept_micros = 0;
    ledger.sweep(later);
    let accounts = ledger.lock();
    assert_eq!((accounts.states.len(), accounts.strangers.len()), (0, 0));
}

#[test]
fn a_use_is_counted_everywhere_or_nowhere() {
    let quotas = quotas("[keys.ci.limits]\ncalls_per_day_max = 9\n[servers.a.limits]\ncalls_per_day_max = 1\n");
    let (ledger, who) = (Arc::new(Ledger::default()), Principal::of_key("ci"));
    let rules = || {
        let mut rules = quotas.of_caller(&who);
        rules.extend(quotas.of_call("a", None).cloned());
        rules
    };
    let used = || {
        let mut all = Vec::new();
        ledger.each(rules().iter(), |_, state| all.push(state.used(Limit::CallsPerDay, NOW)));
        all
    };
    ledger.reserve(rules(), call(0), (&who, &quotas), NOW).unwrap().keep();
    assert_eq!(used(), [1, 1]);
    let Err(NotGranted::Reached(reached)) = ledger.reserve(rules(), call(0), (&who, &quotas), NOW) else { panic!() };
    assert_eq!((reached.name(), used()), ("server_calls_per_day_max", vec![1, 1]));
    drop(ledger.reserve(quotas.of_caller(&who), call(0), (&who, &quotas), NOW).unwrap());
    assert_eq!(used(), [1, 1], "what is dropped is given back");
}

#[test]
fn what_was_used_is_written_once_and_read_again() {
    let quotas = quotas("[keys.ci.limits]\nbudget_per_day_max = \"1\"\n");
    let (ledger, who) = (Arc::new(Ledger::default()), Principal::of_key("ci"));
    assert!(!ledger.take_changed(), "nothing was used");
    ledger.reserve(quotas.of_caller(&who), call(600_000), (&who, &quotas), NOW).unwrap().keep();
    assert!(ledger.take_changed() && !ledger.take_changed());
    ledger.not_written();
    assert!(ledger.take_changed());
    let mut written = Vec::new();
    ledger.write(&mut written).unwrap();
    let next = Arc::new(Ledger::default());
    next.read(&*written).unwrap();
    let mut again = Vec::new();
    next.write(&mut again).unwrap();
    assert_eq!(again, written);
    assert!(next.reserve(quotas.of_caller(&who), call(400_001), (&who, &quotas), NOW).is_err());
    assert!(next.reserve(quotas.of_caller(&who), call(400_000), (&who, &quotas), NOW).is_ok());
    assert!(matches!(next.read(&b"{\"version\":9,\"accounts\":{}}"[..]), Err(Unreadable::Version(9))));
    let nobody = next.read(&b"{\"version\":2,\"accounts\":{\"nobody\":{}}}"[..]);
    assert!(nobody.is_err());
    let mut empty = Vec::new();
    Ledger::default().write(&mut empty).unwrap();
    Ledger::default().read(&*empty).unwrap();
}

/// How long a request waits for its account while a million of them are written down and looked through.
#[test]
#[ignore = "a measurement"]
fn measure_what_a_request_waits_while_a_million_accounts_are_written() {
    let quotas = quotas("[limits]\ncallers_max = 2000000\neach_caller.calls_per_day_max = 1000000\n");
    let ledger = Arc::new(Ledger::default());
    for number in 0..1_000_000 {
        let who = stranger(number);
        ledger.reserve(quotas.of_caller(&who), call(1), (&who, &quotas), NOW).unwrap().keep();
    }
    let (done, mut longest, mut written) = (std::sync::atomic::AtomicBool::new(false), Duration::ZERO, Vec::new());
    let (mut all, mut took) = (Vec::new(), Duration::ZERO);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let started = std::time::Instant::now();
            ledger.sweep(NOW);
            ledger.write(&mut written).unwrap();
            took = started.elapsed();
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let who = stranger(7);
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let started = std::time::Instant::now();
            ledger.reserve(quotas.of_caller(&who), call(1), (&who, &quotas), NOW).unwrap().keep();
            let waited = started.elapsed();
            longest = longest.max(waited);
            all.push(waited);
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    all.sort();
    let p99 = all.get(all.len() * 99 / 100).copied().unwrap_or_default();
    println!(
        "{} MB in {took:?}; {} requests waited {p99:?} at p99, {longest:?} at most",
        written.len() >> 20,
        all.len()
    );
    assert!(p99 < Duration::from_millis(5));
}
