use proptest::prelude::*;

use super::*;
use crate::policy::Per;

const MINUTE: Duration = Duration::from_secs(60);

fn rates(requests: Option<u64>, bytes_out: Option<u64>, bytes_in: Option<u64>) -> Rates {
    Rates { requests, bytes_out, bytes_in, per: Per::Minute }
}

fn ration(whose: Whose, requests: Option<u64>, bytes: Option<u64>) -> Arc<Ration> {
    Ration::new(whose, rates(requests, bytes, bytes))
}

#[tokio::test(start_paused = true)]
async fn so_many_at_once_and_then_as_room_comes_back() {
    let rations = [ration(Whose::Connection, Some(6), None)];
    for _ in 0..6 {
        admit(&rations).expect("room");
    }
    let short = admit(&rations).expect_err("used up");
    assert_eq!((short.what, short.wait), (Scarce::Requests, MINUTE / 6));
    tokio::time::advance(short.wait - Duration::from_millis(1)).await;
    assert_eq!(admit(&rations).expect_err("not yet").wait, Duration::from_millis(1));
    tokio::time::advance(Duration::from_millis(1)).await;
    admit(&rations).expect("one");
    admit(&rations).expect_err("and no more");
    tokio::time::advance(10 * MINUTE).await;
    assert_eq!((0..20).filter(|_| admit(&rations).is_ok()).count(), 6, "it does not heap up");
}

#[tokio::test(start_paused = true)]
async fn what_one_refuses_nobody_gives() {
    let rations = [
        ration(Whose::Rule("a.test on 443".into()), Some(10), Some(1000)),
        ration(Whose::Identity("=ci".into()), Some(2), None),
        ration(Whose::Connection, Some(5), Some(100)),
    ];
    assert_eq!((0..20).filter(|_| admit(&rations).is_ok()).count(), 2);
    let short = admit(&rations).expect_err("used up");
    assert_eq!(short.whose, Whose::Identity("=ci".into()));
    assert_eq!((0..20).filter(|_| admit(&rations[..1]).is_ok()).count(), 8, "the rule gave two");
    let mut held = Held::of(&rations, Scarce::BytesIn);
    assert_eq!(held.room(), 100);
    held.spend(100);
    let short = held.short().expect("used up");
    drop(held);
    // It is worth coming back for a tenth of it.
    assert_eq!((short.whose, short.wait), (Whose::Connection, MINUTE / 10));
    assert_eq!(Held::of(&rations[..1], Scarce::BytesIn).room(), 900);
    // Without room for bytes there is none for a request.
    assert_eq!(admit(&rations[2..]).expect_err("no bytes").what, Scarce::BytesIn);
}

#[test]
fn a_denial_says_whose_rate_it_is_and_when_to_come_back() {
    let short = |what, whose| Short {
        what,
        whose,
        size: Size { most: 60, period: MINUTE },
        wanted: 1,
        room: 0,
        wait: Duration::from_millis(1500),
    };
    let denied = short(Scarce::Requests, Whose::Rule("a.test on 443".into())).verdict();
    assert_eq!((denied.reason, denied.retry_seconds()), (Reason::LimitExceeded, Some(2)));
    assert_eq!(denied.detail, "rates: the rule for a.test on 443 may have 60 requests in 60s, and they are used up");
    let denied = short(Scarce::BytesIn, Whose::Identity("=ci".into())).verdict();
    assert_eq!(denied.reason, Reason::BudgetExceeded);
    assert!(denied.detail.contains("this client may have 60 bytes in in 60s"), "{}", denied.detail);
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_take_bounded_room_and_share_what_is_left() {
    let (rations, rates) = (Rations::default(), rates(Some(1), None, None));
    let ask = |who: usize| admit(&[rations.of(Whose::Identity(who.to_string()), rates)]);
    assert_eq!((0..MOST).filter(|who| ask(*who).is_ok()).count(), MOST);
    assert!(ask(0).is_err(), "each is remembered");
    assert!(ask(MOST).is_ok(), "those beyond share one");
    assert_eq!(ask(MOST + 1).expect_err("used up").whose, Whose::Others(Rationed::Identity));
    assert!(locked(&rations.of_others).rations.len() <= MOST + 1);
    tokio::time::advance(MINUTE).await;
    assert!(ask(MOST + 2).is_ok());
    assert_eq!(locked(&rations.of_others).rations.len(), 1, "those that are idle make room");
}

#[tokio::test(start_paused = true)]
async fn strangers_take_no_ration_of_a_rule_or_a_name_and_are_not_looked_through_for_each() {
    let rations = Rations::default();
    let limits = Limits { requests: Some(Size { most: 1, period: Duration::from_millis(10) }), ..Limits::default() };
    let of = |who: usize| rations.of(Whose::Identity(who.to_string()), limits).whose.clone();
    for who in 0..MOST {
        admit(&[rations.of(Whose::Identity(who.to_string()), limits)]).expect("one");
    }
    assert_eq!(of(MOST), Whose::Others(Rationed::Identity), "all are in use");
    let rule = Whose::Rule("a.test on 443".into());
    let name = Whose::Name("a.test".into());
    for whose in [rule, name] {
        assert_eq!(rations.of(whose.clone(), limits).whose, whose);
    }
    tokio::time::advance(BETWEEN_SWEEPS / 2).await;
    assert_eq!(of(MOST), Whose::Others(Rationed::Identity), "nobody looks again so soon");
    tokio::time::advance(BETWEEN_SWEEPS / 2).await;
    assert_eq!(of(MOST), Whose::Identity(MOST.to_string()));
}

#[test]
fn clients_are_told_apart_by_what_they_cannot_choose() {
    let who = |peer: &str, identity: Option<&str>| {
        let origin = crate::flow::Origin {
            identity: identity.map(Into::into),
            peer: (!peer.is_empty()).then(|| peer.parse().expect("an address")),
            ..crate::flow::Origin::unseen()
        };
        let target = crate::flow::Target { name: None, original: ([0, 0, 0, 0], 0).into() };
        let policy = crate::flow::PolicyId(String::new());
        super::who(&Flow { id: crate::flow::FlowId(0), origin, target, policy })
    };
    for (peer, identity, expected) in [
        ("192.0.2.1:5", None, "192.0.2.1"),
        ("[::ffff:192.0.2.1]:5", None, "192.0.2.1"),
        ("[2001:db8:1:2:3:4:5:6]:5", None, "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:ffff::1]:5", None, "2001:db8:1:2::/64"),
        ("127.0.0.9:5", None, "here"),
        ("[::1]:5", None, "here"),
        ("[2001:db8::1]:5", Some("ci"), "=ci"),
        ("", None, AGENT),
    ] {
        assert_eq!(who(peer, identity), expected, "{peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_says_the_same_forgets_nothing() {
    let rations = Rations::default();
    let rule = || Whose::Rule("a.test on 443".into());
    admit(&[rations.of(rule(), rates(Some(1), None, None))]).expect("one");
    admit(&[rations.of(rule(), rates(Some(1), None, None))]).expect_err("the same");
    admit(&[rations.of(rule(), rates(Some(2), None, None))]).expect("another rate");
}

proptest! {
    /// In any stretch of time no more is given than the rate has at once, and what came back in that time.
    #[test]
    fn no_more_is_given_than_a_rate_allows(
        most in prop_oneof![1..100_u64, Just(1 << 50)],
        seconds in prop_oneof![Just(60_u64), Just(86_400)],
        steps in prop::collection::vec((0..200_000_u64, 0..200_u64), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let size = Size { most, period: Duration::from_secs(seconds) };
            let rations = [Ration::new(Whose::Connection, Limits { bytes_out: Some(size), ..Limits::default() })];
            let start = Instant::now();
            let mut given = 0_u128;
            for (milliseconds, wanted) in steps {
                tokio::time::advance(Duration::from_millis(milliseconds)).await;
                let mut held = Held::of(&rations, Scarce::BytesOut);
                let taken = held.room().min(wanted.saturating_mul(most / 50 + 1));
                held.spend(taken);
                given += u128::from(taken);
                let back = u128::from(most) * start.elapsed().as_nanos() / size.period.as_nanos();
                assert!(given <= u128::from(most) + back, "{given} of {most} and {back}");
                if let Some(short) = held.short() {
                    // And when it says so there is some.
                    drop(held);
                    tokio::time::advance(short.wait).await;
                    assert!(Held::of(&rations, Scarce::BytesOut).room() >= most.div_ceil(WORTH));
                }
            }
        });
    }
}
