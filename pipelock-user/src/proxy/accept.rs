//! The loop that every listener of the proxy runs.
//!
//! Called by `listen`, `http::explicit` and `http::reverse`. It promises that a connection holds a place until its task ends, that one that
//! finds no place is refused at once, unless another makes room, and that closing the proxy ends every connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::counts::{COUNTS, Placed};
use super::silent::Silent;
use super::state::{Place, Proxy};

/// Rest after an accept that failed, so that a lack of descriptors does not turn into a busy loop.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Accepts until the proxy ends, and runs `serve` on each connection in a task of its own, or `refuse`: with a task, it may
/// take a moment to say why, and without (`false`) it must not wait for the client.
pub(super) async fn accept<F, C, R, D>(listener: TcpListener, proxy: Arc<Proxy>, serve: F, refuse: R)
where
    F: Fn(Arc<Proxy>, TcpStream, SocketAddr, Silent) -> C + Clone + Send + 'static,
    C: Future<Output = ()> + Send + 'static,
    R: Fn(Arc<Proxy>, TcpStream, SocketAddr, bool) -> D + Clone + Send + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            // It is signed in among the silent here: many may come before a task of theirs runs.
            Ok((stream, peer)) => match placed(&proxy) {
                Place::Free(place) => {
                    let silent = proxy.silence.enter();
                    hold(&proxy, place, serve(proxy.clone(), stream, peer, silent));
                }
                Place::Soon(wait) => {
                    let mut silent = proxy.silence.enter();
                    let (proxy, serve, refuse) = (proxy.clone(), serve.clone(), refuse.clone());
                    tokio::spawn(async move {
                        let place = tokio::select! {
                            place = proxy.next_place(&mut silent, &stream) => place,
                            () = proxy.closed() => return,
                        };
                        drop(wait);
                        match place {
                            Some(place) => hold(&proxy, place, serve(proxy.clone(), stream, peer, silent)),
                            None => refuse(proxy, stream, peer, false).await,
                        }
                    });
                }
                Place::LastWords(place) => hold(&proxy, place, refuse(proxy.clone(), stream, peer, true)),
                Place::None => refuse(proxy.clone(), stream, peer, false).await,
            },
            Err(error) => {
                // Out of descriptors, or the connection died in the queue: neither ends the service.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// A place for one more, counted.
fn placed(proxy: &Proxy) -> Place {
    let place = proxy.place();
    COUNTS.connections.add(Placed::of(&place));
    place
}

/// Runs a conversation that holds a place, until it ends or the proxy is over.
fn hold(proxy: &Arc<Proxy>, place: OwnedSemaphorePermit, conversation: impl Future<Output = ()> + Send + 'static) {
    let proxy = proxy.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = conversation => {}
            () = proxy.over() => {}
        }
        drop(place);
    });
}
