//! The loop that every listener of the proxy runs.
//!
//! Called by `listen` and `http::explicit`. It promises that a connection holds a place until its task ends, that no more
//! are accepted than there are places, and that closing the proxy ends every connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::state::Proxy;

/// Rest after an accept that failed, so that a lack of descriptors does not turn into a busy loop.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Accepts until the proxy ends, and runs `serve` on each connection in a task of its own.
pub(super) async fn accept<F, C>(listener: TcpListener, proxy: Arc<Proxy>, serve: F)
where
    F: Fn(Arc<Proxy>, TcpStream, SocketAddr) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // While no place is free the rest waits in the listen queue: pressure, not loss.
                let Some(place) = proxy.slot().await else { return };
                let conversation = serve(proxy.clone(), stream, peer);
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = conversation => {}
                        () = proxy.closed() => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, or the connection died in the queue: neither ends the service.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}
