//! What this process uses, and the priority of its threads, where the system has them (Linux).

/// What this process has used so far and holds now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_bytes: u64,
    /// When it began, after 1970 in UTC.
    pub(crate) start_s: f64,
    pub(crate) num_fds: usize,
}

#[cfg(target_os = "linux")]
pub(crate) fn usage() -> Option<Usage> {
    let process = procfs::process::Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks_per_s = procfs::ticks_per_second() as f64;
    Some(Usage {
        cpu_s: (stat.utime + stat.stime) as f64 / ticks_per_s,
        rss_bytes: stat.rss * procfs::page_size(),
        start_s: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks_per_s,
        num_fds: process.fd_count().ok()?,
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn usage() -> Option<Usage> {
    None
}

/// Of decode threads. The thread that serves connections shares the cores with them and needs little, but at once.
#[cfg(target_os = "linux")]
const DECODE_NICENESS: i32 = 7;

/// Has every other thread of this process come before this one; what is not this process's gains by it only where no
/// control group divides the cores between the two.
#[cfg(target_os = "linux")]
pub(crate) fn give_way() {
    // It is refused to nobody. On Linux, other than in POSIX, it is about this thread alone.
    let _ = rustix::process::nice(DECODE_NICENESS);
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn give_way() {}
