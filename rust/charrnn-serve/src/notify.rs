//! What a service manager that gave us a socket (systemd's `NOTIFY_SOCKET`) is told; nothing where there is none.

use sd_notify::NotifyState;
use tracing::warn;

/// Requests are answered.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The server is on its way out.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Models are being loaded again; [`ready`] says when that is over.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "there is no monotonic clock for the service manager"),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager cannot be told");
    }
}
