//! Processor time and memory of a process, where the system says them (Linux).

use std::net::SocketAddr;

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_bytes: u64,
}

#[cfg(target_os = "linux")]
mod system {
    use std::net::SocketAddr;

    use procfs::net::TcpState;
    use procfs::process::{all_processes, FDTarget, Process};

    use super::Usage;

    pub(crate) fn usage(pid: u32) -> Option<Usage> {
        let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        let cpu_s = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        Some(Usage { cpu_s, rss_bytes: stat.rss * procfs::page_size() })
    }

    /// Who listens at a port of this machine, if we may know.
    pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
        let sockets =
            procfs::net::tcp().into_iter().flatten().chain(procfs::net::tcp6().into_iter().flatten());
        let listens = |socket: &procfs::net::TcpNetEntry| {
            let local = socket.local_address;
            let is_ours = local.ip() == address.ip() || local.ip().is_unspecified();
            socket.state == TcpState::Listen && local.port() == address.port() && is_ours
        };
        let inode = sockets.filter(listens).map(|socket| socket.inode).next()?;
        let holds = |process: &Process| {
            let targets = process.fd().into_iter().flatten().flatten().map(|fd| fd.target);
            targets.into_iter().any(|target| matches!(target, FDTarget::Socket(found) if found == inode))
        };
        all_processes().ok()?.flatten().find(holds).and_then(|process| u32::try_from(process.pid).ok())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::net::SocketAddr;

    use super::Usage;

    pub(crate) fn usage(_pid: u32) -> Option<Usage> {
        None
    }

    pub(crate) fn listener(_address: SocketAddr) -> Option<u32> {
        None
    }
}

pub(crate) use system::usage;

/// The process that serves `address`, if it runs on this machine.
pub(crate) fn server_pid(address: &str) -> Option<u32> {
    let mut resolved = std::net::ToSocketAddrs::to_socket_addrs(address).ok()?;
    resolved.find(|address: &SocketAddr| address.ip().is_loopback()).and_then(system::listener)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        assert_eq!(server_pid(&address), Some(std::process::id()));
        drop(listener);
        assert_eq!(server_pid(&address), None);
    }

    #[test]
    fn usage_grows_with_work() {
        let before = usage(std::process::id()).expect("this process");
        // However little of a busy machine this process gets, at some time it is seen.
        let mut after = before;
        while after.cpu_s <= before.cpu_s {
            std::hint::spin_loop();
            after = usage(std::process::id()).expect("this process");
        }
        assert!(after.rss_bytes > 0);
    }
}
