//! Follows the addresses of a host: what is its own, and what is a broadcast, changes while a session lasts.
//!
//! Started by `session` for each network namespace. It promises that the kernel learns of a change as soon as it is told of,
//! and in five seconds when it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::{AddressChanges, AddressList, Maps};

/// How often the host's own addresses are read again when no change is told of.
const ADDRESSES: Duration = Duration::from_secs(5);
/// Rest after reading them, so that a host whose addresses never rest does not keep us busy.
const ADDRESSES_REST: Duration = Duration::from_millis(20);

/// Keeps the kernel's table of one namespace's addresses as they are: read again at once when one changes, and from time to
/// time.
pub(super) async fn follow_addresses(maps: Arc<Maps>, cookie: u64, mut list: AddressList, changes: AddressChanges) {
    // SAFETY: it owns the descriptor it names, and closes it when it is dropped.
    let changes = unsafe { AsyncFd::register_with_interest(changes, Interest::READABLE) }
        .inspect_err(|error| tracing::warn!(%error, namespace = cookie, "changes of addresses are seen late"))
        .ok();
    let mut tick = tokio::time::interval(ADDRESSES);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = changed(changes.as_ref()) => {}
        }
        // What was read last stays in force.
        let put = list
            .read()
            .map_err(|error| error.to_string())
            .and_then(|addresses| maps.set_own(cookie, &addresses).map_err(|error| error.to_string()));
        if let Err(error) = put {
            tracing::warn!(error, namespace = cookie, "the host's addresses could not be read again");
        }
        tokio::time::sleep(ADDRESSES_REST).await;
    }
}

/// Waits for a change; for ever when nobody tells of any.
async fn changed(changes: Option<&AsyncFd<AddressChanges>>) {
    let Some(changes) = changes else { return std::future::pending().await };
    while let Ok(mut guard) = changes.readable().await {
        // An error is as good a reason to look as a change.
        if guard.try_io(|changes| changes.get_ref().take()).is_ok() {
            return;
        }
    }
    std::future::pending().await
}
