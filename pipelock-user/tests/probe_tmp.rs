//! Temporary.
#[test]
fn probe() {
    let probe = pipelock::kernel::probe().expect("probe");
    for (name, result) in &probe.hooks {
        println!("{name}: {result:?}");
    }
    println!("{}", probe.level);
}
