//! Lines of the log that anybody can cause: no more of them than a disk can take.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

/// Lines a second; what anybody can cause must not fill a disk.
const MAX_LINES: u32 = 20;

/// When this second began, its lines so far, and those left out.
static LINES: Mutex<Option<(Instant, u32, u32)>> = Mutex::new(None);

/// Writes a line for whoever runs the server. Beyond `MAX_LINES` a second they are only counted.
pub(crate) fn tell(line: impl Display) {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let (began, num_told, num_left_out) = lines.get_or_insert((now, 0, 0));
    if now - *began >= Duration::from_secs(1) {
        if *num_left_out > 0 {
            info!("{num_left_out} more such lines left out");
        }
        (*began, *num_told, *num_left_out) = (now, 0, 0);
    }
    match *num_told < MAX_LINES {
        true => {
            *num_told += 1;
            info!("{line}");
        }
        false => *num_left_out += 1,
    }
}
