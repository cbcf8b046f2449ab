//! How long a connection may take to say that it speaks HTTP/2: what waits for that forever takes a place and gives none
//! back, and HTTP/2's own keepalive begins only after it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// The preface of HTTP/2 and the head of the SETTINGS frame that must follow.
const NUM_BYTES: usize = 24 + 9;

/// The first bytes of a connection.
pub(crate) struct Greeting(Option<Awaited>);

struct Awaited {
    num_bytes: usize,
    until: Pin<Box<Sleep>>,
}

impl Greeting {
    /// One that comes within `timeout`. Needs a runtime.
    pub(crate) fn within(timeout: Duration) -> Self {
        let until = Box::pin(tokio::time::sleep(timeout));
        Greeting(Some(Awaited { num_bytes: NUM_BYTES, until }))
    }

    /// Looks at a read that gave `num_bytes`: it is over if it waits, and the time for all of the greeting is over.
    pub(crate) fn check(
        &mut self,
        context: &mut Context<'_>,
        num_bytes: usize,
        read: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let Some(awaited) = &mut self.0 else { return read };
        if num_bytes >= awaited.num_bytes {
            self.0 = None;
            return read;
        }
        awaited.num_bytes -= num_bytes;
        match read.is_pending() && awaited.until.as_mut().poll(context).is_ready() {
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const SOON: Duration = Duration::from_millis(1);

    async fn wait(greeting: &mut Greeting) -> io::ErrorKind {
        let ended = poll_fn(|context| greeting.check(context, 0, Poll::Pending)).await;
        ended.expect_err("nothing was read").kind()
    }

    fn read(greeting: &mut Greeting, num_bytes: usize) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(greeting.check(&mut context, num_bytes, Poll::Ready(Ok(()))).is_ready());
    }

    #[tokio::test]
    async fn one_that_does_not_come_in_time_ends_the_wait() {
        let mut greeting = Greeting::within(SOON);
        assert_eq!(wait(&mut greeting).await, io::ErrorKind::TimedOut);
        let mut greeting = Greeting::within(SOON);
        (1..NUM_BYTES).for_each(|_| read(&mut greeting, 1));
        assert_eq!(wait(&mut greeting).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn after_it_a_connection_may_be_still() {
        let mut greeting = Greeting::within(SOON);
        read(&mut greeting, 1);
        read(&mut greeting, NUM_BYTES - 1);
        tokio::time::sleep(10 * SOON).await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(greeting.check(&mut context, 0, Poll::Pending).is_pending());
    }
}
